// Reads and writes picture files with stb.
#include <cstddef>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

#include "vision.h"

namespace vision {

Picture read_picture(const std::string& path) {
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<unsigned char, void (*)(void*)> rgba(
      stbi_load(path.c_str(), &width, &height, &channels, STBI_rgb_alpha), stbi_image_free);
  if (!rgba) {
    throw Unusable(path + " cannot be read as a picture: " + stbi_failure_reason());
  }
  const std::size_t pixels = std::size_t(width) * height;
  Picture picture{width, height, std::vector<unsigned char>(pixels * 3)};
  for (std::size_t i = 0; i < pixels; ++i) {
    const int alpha = rgba.get()[i * 4 + 3];
    for (int c = 0; c < 3; ++c) {
      const int over_white = rgba.get()[i * 4 + c] * alpha + 255 * (255 - alpha);
      picture.samples[i * 3 + c] = static_cast<unsigned char>((over_white + 127) / 255);
    }
  }
  return picture;
}

void write_png(const std::string& path, const Picture& picture) {
  const int row = picture.width * 3;
  if (!stbi_write_png(path.c_str(), picture.width, picture.height, 3, picture.samples.data(), row)) {
    throw Unusable("cannot write " + path);
  }
}

}  // namespace vision

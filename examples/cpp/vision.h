// Shared by classify.cpp and translate.cpp. Copy vision.h, model.cpp and picture.cpp into your
// application. Only model.cpp includes PyTorch's headers, which are slow to compile.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace vision {

// A file or a device cannot be used; the message is for the user.
struct Unusable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// RGB with 8 bits per sample, row by row from the top.
struct Picture {
  int width, height;
  std::vector<unsigned char> samples;
};

// Reads JPEG, PNG and other formats of stb_image; transparency is put on white. The EXIF
// orientation is ignored. Throws Unusable.
Picture read_picture(const std::string& path);

// Throws Unusable.
void write_png(const std::string& path, const Picture& picture);

struct Prediction {
  std::string label;
  float probability;
};

// A network of this project that has passed its golden example on its device: TorchScript from a
// .pt, or an AOTInductor package from an .aoti.pt2, which runs on the CPU.
class Model {
 public:
  // `output` is the required kind of output: "classes" or "picture". `device` is "cpu", "cuda" or
  // "auto", which is the GPU if PyTorch can use one, else the CPU. Throws Unusable.
  Model(const std::string& path, const std::string& output, const std::string& device = "auto");
  ~Model();

  // The most probable classes, most probable first.
  std::vector<Prediction> classify(const Picture& picture, int top_k = 5);

  // The translated picture. `size` is its shorter side in pixels; 0 is the model's default.
  Picture translate(const Picture& picture, int size = 0);

  // The weights and the device, for a message.
  std::string description() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace vision

// What classify.cpp and translate.cpp share. Copy vision.h, model.cpp and picture.cpp into your
// application; PyTorch's headers, which are slow to compile, stay inside model.cpp.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace vision {

// A file or a device that cannot be used; the message is for whoever runs the program.
struct Unusable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// RGB, 8 bits a sample, row after row from the top.
struct Picture {
  int width, height;
  std::vector<unsigned char> samples;
};

// JPEG, PNG and what else stb_image reads, on white where it is transparent. A JPEG's EXIF
// orientation is not heeded. Throws Unusable.
Picture read_picture(const std::string& path);

// Throws Unusable.
void write_png(const std::string& path, const Picture& picture);

struct Prediction {
  std::string label;
  float probability;
};

// A network from a .pt of this project, which gave its golden example's answer on its device.
class Model {
 public:
  // `output` is what the network must give: "classes" or "picture". `device` is "cpu", "cuda", or
  // "auto": the GPU where PyTorch can use one, else the CPU. Throws Unusable.
  Model(const std::string& path, const std::string& output, const std::string& device = "auto");
  ~Model();

  // The likeliest classes, best first.
  std::vector<Prediction> classify(const Picture& picture, int top_k = 5);

  // What the network paints. `size` is the shorter side in pixels; 0 is what the model was made for.
  Picture translate(const Picture& picture, int size = 0);

  // The weights and the device, for people.
  std::string description() const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace vision

// `classify MODEL.pt PHOTO` prints the most probable classes of a photograph.
#include <cstdio>

#include "command.h"
#include "vision.h"

int main(int argc, char** argv) {
  const auto classify = [](const std::vector<std::string>& arguments, const std::string& device) {
    const int top_k = arguments.size() > 2 ? number(arguments[2], 1) : 5;
    vision::Model model(arguments[0], "classes", device);
    const auto predictions = model.classify(vision::read_picture(arguments[1]), top_k);
    std::cerr << model.description() << '\n';
    for (size_t i = 0; i < predictions.size(); ++i) {
      const auto& [label, probability] = predictions[i];
      std::printf("%zu. %.6f %s\n", i + 1, probability, label.c_str());
    }
  };
  return command(argc, argv, "classify MODEL.pt PHOTO [TOP_K]", 2, 3, classify);
}

// What is in a photograph: `classify MODEL.pt PHOTO` prints the likeliest classes.
#include <cstdio>

#include "command.h"
#include "vision.h"

int main(int argc, char** argv) {
  const auto classify = [](const std::vector<std::string>& words, const std::string& device) {
    const int top_k = words.size() > 2 ? number(words[2], 1) : 5;
    vision::Model model(words[0], "classes", device);
    const auto found = model.classify(vision::read_picture(words[1]), top_k);
    std::cerr << model.description() << '\n';
    for (size_t i = 0; i < found.size(); ++i) {
      std::printf("%zu. %.6f %s\n", i + 1, found[i].probability, found[i].label.c_str());
    }
  };
  return command(argc, argv, "classify MODEL.pt PHOTO [TOP_K]", 2, 3, classify);
}

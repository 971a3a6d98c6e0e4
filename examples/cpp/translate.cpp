// A horse as a zebra: `translate MODEL.pt PHOTO OUT.png` writes what the network paints.
#include "command.h"
#include "vision.h"

int main(int argc, char** argv) {
  const auto translate = [](const std::vector<std::string>& words, const std::string& device) {
    const int size = words.size() > 3 ? number(words[3], 64) : 0;
    vision::Model model(words[0], "picture", device);
    const auto painted = model.translate(vision::read_picture(words[1]), size);
    vision::write_png(words[2], painted);
    std::cerr << model.description() << '\n';
    std::cout << words[2] << ": " << painted.width << 'x' << painted.height << '\n';
  };
  return command(argc, argv, "translate MODEL.pt PHOTO OUT.png [SIZE]", 3, 4, translate);
}

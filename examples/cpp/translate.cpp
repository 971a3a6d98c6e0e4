// `translate MODEL.pt PHOTO OUT.png` writes the network's picture: a horse becomes a zebra.
#include "command.h"
#include "vision.h"

int main(int argc, char** argv) {
  const auto translate = [](const std::vector<std::string>& arguments, const std::string& device) {
    const int size = arguments.size() > 3 ? number(arguments[3], 64) : 0;
    vision::Model model(arguments[0], "picture", device);
    const auto picture = model.translate(vision::read_picture(arguments[1]), size);
    vision::write_png(arguments[2], picture);
    std::cerr << model.description() << '\n';
    std::cout << arguments[2] << ": " << picture.width << 'x' << picture.height << '\n';
  };
  return command(argc, argv, "translate MODEL.pt PHOTO OUT.png [SIZE]", 3, 4, translate);
}

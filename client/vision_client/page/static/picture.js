// Pictures that the browser decodes.

// The picture at `url` as a decoded image, or null if the browser does not support it.
export async function decoded(url) {
  const image = new Image();
  image.src = url;
  return image.decode().then(() => image, () => null);
}

// What `source`, an image or a video of this size in pixels, shows: a JPEG on white.
export async function jpeg(source, width, height, name) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(source, 0, 0, width, height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return new File([blob], name, { type: "image/jpeg" });
}

// `file`, or the JPEG of a picture that the browser can show and the server does not take, such as
// HEIC in Safari. `taken` are the media types that the server takes.
export async function sendable(file, taken) {
  if (!file.type.startsWith("image/") || taken.includes(file.type)) return file;
  const url = URL.createObjectURL(file);
  const image = await decoded(url);
  URL.revokeObjectURL(url);
  if (!image?.naturalWidth) return file;
  return jpeg(image, image.naturalWidth, image.naturalHeight, `${file.name}.jpg`);
}

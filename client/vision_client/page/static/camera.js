// A photograph from the camera: a File, or null if the dialog was cancelled.

import { jpeg } from "./picture.js";
import { Problem } from "./server.js";

const REASONS = {
  NotFoundError: "this machine has none.",
  NotAllowedError: "the browser does not let this page use it.",
  NotReadableError: "it cannot be read; another program may be using it.",
};

export async function takePhotograph(dialog) {
  const video = dialog.querySelector("video");
  const stream = await open();
  try {
    video.srcObject = stream;
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    return dialog.returnValue === "take" ? await frame(video) : null;
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

async function open() {
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    throw new Problem(`No camera: ${REASONS[error.name] ?? error.message}`);
  }
}

async function frame(video) {
  await video.play(); // returns at once, unless the camera is still starting
  return jpeg(video, video.videoWidth, video.videoHeight, "camera.jpg");
}

// A photograph from the camera: a File, or null if the dialog was cancelled.

import { Problem } from "./server.js";

const REASONS = {
  NotFoundError: "This machine has none.",
  NotAllowedError: "The browser does not let this page use it.",
  NotReadableError: "It cannot be read: another program may be using it.",
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
    throw new Problem("No camera.", REASONS[error.name] ?? error.message, false);
  }
}

async function frame(video) {
  await video.play(); // returns at once, unless the camera is still starting
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return new File([blob], "camera.jpg", { type: "image/jpeg" });
}

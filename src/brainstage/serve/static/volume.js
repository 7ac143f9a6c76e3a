/** A NIfTI volume in three planes, drawn by NiiVue from the browser's own file. */

import { byId } from "./dom.js";

const HINT = "NiiVue draws it here in your browser, from your own file. Click to move the cross. The person's right is on the left.";
const NO_DRAWING = "This browser cannot draw volumes (that needs WebGL 2). The prediction does not depend on it: the model saw the slices above.";
let viewer = null;
let wanted = null; // the file that was requested last

/** Show a volume; null hides the view. */
export async function showVolume(file) {
  wanted = file;
  byId("volume").hidden = !file;
  delete byId("planes").dataset.drawn;
  if (!file) return;
  byId("volume-hint").textContent = "Opening the volume …";
  try {
    const { Niivue, NVImage } = await import("./vendor/niivue.js");
    viewer ??= await opened(Niivue);
    await draw(NVImage, file);
  } catch (error) {
    if (wanted === file) byId("volume-hint").textContent = NO_DRAWING;
  }
}

async function opened(Niivue) {
  const made = new Niivue({
    crosshairColor: [0.3, 0.75, 0.78, 0.9],
    crosshairWidth: 0.7,
    crosshairWidthUnit: "mm",
    fontColor: [0.75, 0.8, 0.83, 1],
    showAllOrientationMarkers: true,
    isRadiologicalConvention: true, // the person's right is on the left, as on the slices
    dragAndDropEnabled: false,
    logLevel: "error",
    multiplanarPadPixels: 24, // else the L of one plane touches the next
    multiplanarShowRender: 0,
    scrollRequiresFocus: true,
    show3Dcrosshair: false,
  });
  await made.attachToCanvas(byId("planes"));
  made.setSliceType(made.sliceTypeMultiplanar);
  return made;
}

async function draw(NVImage, file) {
  const packed = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  // NiiVue goes by the name's ending
  const name = packed[0] === 0x1f && packed[1] === 0x8b ? "volume.nii.gz" : "volume.nii";
  const image = await NVImage.loadFromFile({ file: new File([file], name), name });
  if (wanted !== file) return;
  while (viewer.volumes.length) viewer.removeVolume(viewer.volumes[0]);
  viewer.addVolume(image);
  viewer.resizeListener();
  byId("volume-hint").textContent = HINT;
  byId("planes").dataset.drawn = "yes";
}

// The browser's side of fer_nb.webcam.LiveView: the newest image and its cards, which come by messages and are kept nowhere else.
// A plain ES module: no build step, nothing loaded from elsewhere.

function render({model, el}) {
  const root = document.createElement("div");
  root.className = "fer-panel fer-live fer-screen";
  root.innerHTML = `<img alt="The newest frame with its faces" hidden><div class="fer-cards"></div>`;
  el.append(root);
  const image = root.querySelector("img");
  image.style.maxWidth = `min(100%, ${model.get("width")}px)`;
  const show = (message, buffers) => {
    if (message.kind !== "show") return;
    const old = image.src;
    image.hidden = !buffers.length;
    if (buffers.length) image.src = URL.createObjectURL(new Blob([buffers[0]], {type: "image/jpeg"}));
    else image.removeAttribute("src");
    if (old) URL.revokeObjectURL(old);
    root.querySelector(".fer-cards").innerHTML = message.cards;
  };
  model.on("msg:custom", show);
  const leave = attend(model, root);
  model.send({kind: "hello"});
  return () => {
    leave();
    model.off("msg:custom", show);
    if (image.src) URL.revokeObjectURL(image.src);
  };
}

export default {render};

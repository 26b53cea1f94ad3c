// The picture of the slice viewer: it shows what the kernel drew and tells it what pointer and keys
// did. One event is under way at a time; what happens meanwhile is put together to the next.

const ADDED = ["dx", "dy", "steps"]; // of events put together; of the rest the latest counts
const WHEEL_STEP = 40; // pixels: a touchpad's small moves add up to a slice

function render({ model, el }) {
  const picture = document.createElement("img");
  picture.tabIndex = 0;
  picture.draggable = false;
  picture.className = "lits-picture";
  picture.setAttribute("role", "application");
  el.append(picture);

  const queue = [];
  let busy = false, held = null, rolled = 0, address = null;

  function tell(event) {
    const last = queue.at(-1);
    if (last && last.kind === event.kind && last.key === event.key && event.kind !== "down") {
      for (const name of ADDED) event[name] = (last[name] || 0) + (event[name] || 0);
      queue.pop();
    }
    queue.push(event);
    send();
  }
  function send() {
    if (busy || !queue.length) return;
    busy = true;
    model.send(queue.shift());
  }
  function answered() {
    busy = false;
    send();
  }
  function show() {
    const former = address;
    const blob = new Blob([model.get("value")], { type: `image/${model.get("format")}` });
    address = URL.createObjectURL(blob);
    picture.src = address;
    if (former) URL.revokeObjectURL(former);
  }
  function name() {
    // JupyterLab leaves the keys of the viewer alone.
    picture.closest(".lits-viewer")?.setAttribute("data-lm-suppress-shortcuts", "true");
    picture.alt = model.get("alt");
    picture.setAttribute("aria-label", picture.alt);
  }
  function place(e) {
    const frame = picture.getBoundingClientRect();
    return { x: (e.clientX - frame.left) / frame.width, y: (e.clientY - frame.top) / frame.height };
  }

  picture.onload = name;
  picture.onpointerdown = (e) => {
    if (e.button === 1) return;
    held = { ...place(e), button: e.button, shift: e.shiftKey };
    picture.focus({ preventScroll: true });
    picture.setPointerCapture(e.pointerId);
    tell({ kind: "down", ...held });
    e.preventDefault();
  };
  picture.onpointermove = (e) => {
    if (!held) return;
    const now = place(e);
    tell({ ...held, kind: "drag", ...now, dx: now.x - held.x, dy: now.y - held.y });
    Object.assign(held, now);
  };
  picture.onpointerup = picture.onpointercancel = () => { held = null; };
  picture.ondblclick = (e) => tell({ kind: "double", ...place(e) });
  picture.oncontextmenu = (e) => {
    e.preventDefault();
    e.stopPropagation(); // JupyterLab would open a menu of its own after a right drag
  };
  picture.addEventListener("wheel", (e) => {
    e.preventDefault();
    if (e.ctrlKey) {
      tell({ kind: "zoom", ...place(e), steps: Math.max(-1, Math.min(1, -e.deltaY / 100)) });
      return;
    }
    rolled = Math.abs(e.deltaY) < WHEEL_STEP && e.deltaMode === 0 ? rolled + e.deltaY : 0;
    if (Math.abs(rolled) < WHEEL_STEP && rolled) return;
    rolled = 0;
    if (e.deltaY) tell({ kind: "wheel", ...place(e), steps: -Math.sign(e.deltaY) });
  }, { passive: false });
  picture.onkeydown = (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || !model.get("taken_keys").includes(e.key)) return;
    tell({ kind: "key", key: e.key, shift: e.shiftKey, steps: 1 });
    e.preventDefault();
    e.stopPropagation();
  };

  model.on("change:value", show);
  model.on("change:alt", name);
  model.on("change:answered", answered);
  show();
  name();
  return () => {
    model.off("change:value", show);
    model.off("change:alt", name);
    model.off("change:answered", answered);
    URL.revokeObjectURL(address);
  };
}

export default { render };

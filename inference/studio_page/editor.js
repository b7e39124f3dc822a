// A skeleton whose joints are dragged. A pose is a list of 18 [y, x] in pixels of the image, null = hidden.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  setAttributes(made, attributes);
  if (parent) parent.append(made);
  return made;
}

export function setAttributes(changed, attributes) {
  for (const [key, value] of Object.entries(attributes)) changed.setAttribute(key, value);
}

export function drawSkeleton(svg, pose, look, zoom = 1) {
  const width = Math.max(1, look.size[0] / 64) * zoom;
  look.limbs.forEach(([a, b], i) => {
    if (!pose[a] || !pose[b]) return;
    const [[y1, x1], [y2, x2]] = [pose[a], pose[b]];
    element("line", { x1, y1, x2, y2, stroke: `rgb(${look.limb_colors[i]})`, "stroke-width": width }, svg);
  });
}

export class Editor {
  // svg: where it is drawn. look: what /api/start returns. modes(): {lock, limb}, how a drag moves other joints.
  // changed(): called while a joint moves. settled(): called when a change is complete.
  constructor(svg, look, { modes, changed, settled }) {
    Object.assign(this, { svg, look, modes, changed, settled });
    [this.height, this.width] = look.size;
    this.pose = Array(18).fill(null);
    this.last = Array(18).fill(null); // where a hidden joint was
    this.selected = null;
    this.enabled = true;
    this.pointers = new Map(); // the last event of the mouse, or of each finger, that is down
    this.start = null; // {at, pose, modes} when the drag in progress began
    this.view = [0, 0, this.width, this.height];
    this.parents = Array(18).fill(null);
    for (const [parent, child] of look.limbs) this.parents[child] = parent;
    this.background = element("g", {}, svg);
    this.circles = look.joints.map((name, i) => { // made once: the browser loses track of a finger on one that is removed
      const fill = `rgb(${look.joint_colors[i]})`;
      const circle = element("circle", { class: "joint", fill, tabindex: 0, "data-joint": i, role: "button", "aria-label": name });
      element("title", {}, circle).textContent = name;
      return circle;
    });
    svg.addEventListener("pointerdown", (event) => this.grab(event));
    svg.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, (event) => this.drop(event));
    svg.addEventListener("keydown", (event) => this.press(event));
    svg.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    svg.addEventListener("dblclick", () => this.showWhole());
  }

  enable(enabled) {
    this.enabled = enabled;
    this.showWhole();
  }

  showWhole() {
    this.view = [0, 0, this.width, this.height];
    this.draw();
  }

  set(pose) {
    this.pose = pose.map((joint) => joint && [...joint]);
    this.pose.forEach((joint, i) => { if (joint) this.last[i] = [...joint]; });
    this.draw();
  }

  draw() {
    const { background, width, height } = this;
    const zoom = this.view[3] / height;
    this.svg.classList.toggle("editable", this.enabled);
    this.svg.setAttribute("viewBox", this.view.join(" "));
    background.replaceChildren();
    if (this.image) element("image", { href: this.image, width, height }, background);
    element("rect", { width, height, fill: "none", stroke: "#555", "stroke-width": 0.3 }, background);
    if (this.enabled) drawSkeleton(background, this.pose, this.look, zoom);
    const radius = Math.max(1.2, height / 90) * zoom;
    this.circles.forEach((circle, i) => {
      if (!this.enabled || !this.pose[i]) return circle.remove();
      const [cy, cx] = this.pose[i];
      setAttributes(circle, { cx, cy, r: radius * (i === this.selected ? 1.6 : 1), "stroke-width": radius / 4 });
      if (!circle.parentNode) this.svg.append(circle);
    });
  }

  at(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return [point.y, point.x];
  }

  // The joint at the pointer, null for none. A finger covers more of the screen than a mouse.
  nearest(event) {
    const reach = (event.pointerType === "touch" ? 24 : 12) / this.svg.getScreenCTM().a;
    const [y, x] = this.at(event);
    const distances = this.pose.map((joint) => (joint ? Math.hypot(joint[0] - y, joint[1] - x) : Infinity));
    const least = Math.min(...distances);
    return least <= reach ? distances.lastIndexOf(least) : null; // the last one is drawn on top
  }

  modesOf(event) {
    const modes = this.modes();
    return { ...modes, limb: modes.limb || event.shiftKey };
  }

  // One pointer drags the joint below it, or the whole pose; two fingers zoom.
  grab(event) {
    if (!this.enabled || event.button || this.pointers.size === 2) return;
    event.preventDefault();
    this.svg.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size === 2) return this.cancel();
    this.selected = this.nearest(event);
    this.start = { at: this.at(event), pose: this.pose, modes: this.modesOf(event) };
    this.draw();
    this.circles[this.selected]?.focus({ preventScroll: true });
  }

  move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    this.pointers.set(event.pointerId, event);
    const other = [...this.pointers.values()].find((pointer) => pointer !== event);
    if (other) return this.pinch(other, last, event);
    if (!this.start) return;
    const [y, x] = this.at(event);
    this.drag(this.start.pose, [y - this.start.at[0], x - this.start.at[1]], this.start.modes);
  }

  drop(event) {
    if (!this.pointers.delete(event.pointerId) || !this.start) return;
    const before = this.start.pose;
    this.start = null;
    if (JSON.stringify(before) !== JSON.stringify(this.pose)) this.settled();
  }

  // Undo the drag that the first of two fingers began.
  cancel() {
    if (!this.start) return;
    this.set(this.start.pose);
    this.start = null;
    this.changed();
  }

  // Move the selected joint by [dy, dx] from where it was in the pose `before`; without one, all joints.
  drag(before, by, { lock, limb }) {
    const i = this.selected;
    const parent = before[this.parents[i]];
    let [dy, dx] = by;
    if (lock && parent) { // the joint stays on a circle around its parent
      const [y, x] = [before[i][0] - parent[0], before[i][1] - parent[1]];
      const angle = Math.atan2(y + dy, x + dx);
      const length = Math.hypot(y, x);
      [dy, dx] = [Math.sin(angle) * length - y, Math.cos(angle) * length - x];
    }
    const moved = i === null ? () => true : lock || limb ? (j) => this.isBelow(j, i) : (j) => j === i;
    this.set(before.map((joint, j) => joint && (moved(j) ? [joint[0] + dy, joint[1] + dx] : joint)));
    this.changed();
  }

  isBelow(joint, ancestor) {
    for (let j = joint; j !== null; j = this.parents[j]) if (j === ancestor) return true;
    return false;
  }

  press(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (event.target.dataset.joint === undefined) return;
    this.selected = Number(event.target.dataset.joint);
    if (event.key === "Delete" || event.key === "Backspace") this.hide();
    else if (steps[event.key]) {
      this.drag(this.pose, steps[event.key], this.modesOf(event));
      this.settled();
    } else return;
    event.preventDefault();
  }

  wheel(event) {
    if (!this.enabled) return; // the page scrolls
    event.preventDefault();
    this.zoom(1.0015 ** event.deltaY, this.at(event));
  }

  // One of two fingers moves: the part of the image between them stays between them.
  pinch(other, from, to) {
    const distance = (finger) => Math.max(1, Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY));
    const middle = (finger) => this.at({
      clientX: (finger.clientX + other.clientX) / 2, clientY: (finger.clientY + other.clientY) / 2,
    });
    const [y, x] = middle(from);
    this.zoom(distance(from) / distance(to), [y, x]);
    const now = middle(to);
    this.view[0] += x - now[1];
    this.view[1] += y - now[0];
    this.draw();
  }

  // Show `factor` times as much, between a tenth and twice the image; the point (y, x) stays where it is.
  zoom(factor, [y, x]) {
    const [left, top, width, height] = this.view;
    const limited = Math.min(2, Math.max(0.1, (height / this.height) * factor)) * (this.height / height);
    this.view = [x - (x - left) * limited, y - (y - top) * limited, width * limited, height * limited];
    this.draw();
  }

  hide() {
    if (this.selected === null || !this.pose[this.selected]) throw new Error("choose a joint first: click it");
    this.pose[this.selected] = null;
    this.selected = null;
    this.finish();
  }

  restore(joint) {
    this.pose[joint] = this.last[joint] ?? [this.height / 2, this.width / 2];
    this.selected = joint;
    this.finish();
  }

  mirror() {
    const other = this.look.joints.map((name) => {
      const swapped = name.replace(/right|left/, (side) => (side === "right" ? "left" : "right"));
      return this.look.joints.indexOf(swapped);
    });
    this.set(other.map((j) => this.pose[j] && [this.pose[j][0], this.width - 1 - this.pose[j][1]]));
    this.finish();
  }

  // Scale and rotate (degrees, clockwise) all joints around their middle.
  turn(scale, degrees) {
    const known = this.pose.filter(Boolean);
    const [cy, cx] = [0, 1].map((axis) => known.reduce((sum, joint) => sum + joint[axis], 0) / known.length);
    const [s, c] = [Math.sin, Math.cos].map((f) => f((degrees * Math.PI) / 180) * scale);
    this.set(this.pose.map((joint) => {
      if (!joint) return null;
      const [y, x] = [joint[0] - cy, joint[1] - cx];
      return [cy + c * y + s * x, cx + c * x - s * y];
    }));
    this.finish();
  }

  finish() {
    this.draw();
    this.changed();
    this.settled();
  }
}

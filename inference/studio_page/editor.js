// A skeleton whose joints are dragged. A pose is a list of 18 [y, x] in pixels of the image, null = hidden.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

export function drawSkeleton(svg, pose, look) {
  const width = Math.max(1, look.size[0] / 64);
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
    this.view = [0, 0, this.width, this.height];
    this.parents = Array(18).fill(null);
    for (const [parent, child] of look.limbs) this.parents[child] = parent;
    svg.addEventListener("pointerdown", (event) => this.grab(event));
    svg.addEventListener("keydown", (event) => this.press(event));
    svg.addEventListener("wheel", (event) => this.zoom(event), { passive: false });
    svg.addEventListener("dblclick", () => { this.view = [0, 0, this.width, this.height]; this.draw(); });
  }

  set(pose) {
    this.pose = pose.map((joint) => joint && [...joint]);
    this.pose.forEach((joint, i) => { if (joint) this.last[i] = [...joint]; });
    this.draw();
  }

  draw() {
    const focused = document.activeElement?.closest?.("svg") === this.svg;
    this.svg.setAttribute("viewBox", this.view.join(" "));
    this.svg.replaceChildren();
    if (this.image) element("image", { href: this.image, width: this.width, height: this.height }, this.svg);
    element("rect", { width: this.width, height: this.height, fill: "none", stroke: "#555", "stroke-width": 0.3 }, this.svg);
    if (!this.enabled) return;
    drawSkeleton(this.svg, this.pose, this.look);
    const radius = Math.max(1.2, this.height / 90) * (this.view[3] / this.height);
    this.pose.forEach((joint, i) => {
      if (!joint) return;
      const [cy, cx] = joint;
      element("circle", { class: "grip", cx, cy, r: 2.4 * radius, "data-joint": i }, this.svg);
      const circle = element("circle", {
        class: "joint", cx, cy, r: radius * (i === this.selected ? 1.6 : 1), fill: `rgb(${this.look.joint_colors[i]})`,
        "stroke-width": radius / 4, tabindex: 0, "data-joint": i, role: "button", "aria-label": this.look.joints[i],
      }, this.svg);
      element("title", {}, circle).textContent = this.look.joints[i];
      if (focused && i === this.selected) circle.focus({ preventScroll: true });
    });
  }

  at(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
    return [point.y, point.x];
  }

  grab(event) {
    if (!this.enabled || event.button) return;
    event.preventDefault();
    const joint = event.target.dataset.joint;
    this.selected = joint === undefined ? null : Number(joint);
    const start = this.at(event);
    const before = this.pose.map((each) => each && [...each]);
    const modes = { ...this.modes() };
    modes.limb ||= event.shiftKey;
    const move = (next) => {
      const [y, x] = this.at(next);
      this.drag(before, [y - start[0], x - start[1]], modes);
    };
    const drop = () => {
      this.svg.removeEventListener("pointermove", move);
      for (const end of ["pointerup", "pointercancel"]) this.svg.removeEventListener(end, drop);
      if (JSON.stringify(before) !== JSON.stringify(this.pose)) this.settled();
    };
    this.svg.setPointerCapture(event.pointerId);
    this.svg.addEventListener("pointermove", move);
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, drop);
    this.draw();
    this.svg.querySelector(`.joint[data-joint="${this.selected}"]`)?.focus({ preventScroll: true });
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
      this.drag(this.pose, steps[event.key], { limb: event.shiftKey });
      this.settled();
    } else return;
    event.preventDefault();
  }

  zoom(event) {
    event.preventDefault();
    const [y, x] = this.at(event);
    const [left, top, width, height] = this.view;
    const factor = Math.min(2, Math.max(0.1, (height / this.height) * 1.0015 ** event.deltaY)) * (this.height / height);
    this.view = [x - (x - left) * factor, y - (y - top) * factor, width * factor, height * factor];
    this.draw();
  }

  hide() {
    if (this.selected === null || !this.pose[this.selected]) return;
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

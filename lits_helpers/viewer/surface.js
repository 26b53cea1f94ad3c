for (const canvas of document.querySelectorAll('canvas.lits-surface:not([data-started])')) {
  canvas.dataset.started = 'yes';
  const marks = Object.entries(JSON.parse(canvas.dataset.marks));
  const boxes = canvas.parentElement.querySelectorAll('input');
  const read = (text, type) => new type(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
  const meshes = JSON.parse(canvas.dataset.meshes).map(mesh => ({
    ...mesh, points: read(mesh.points, Float32Array), triangles: read(mesh.triangles, Uint32Array)
  }));
  const size = canvas.width, context = canvas.getContext('2d');
  const layer = document.createElement('canvas');
  layer.width = layer.height = size;
  const brush = layer.getContext('2d');
  const scale = size / 2.4;
  let turn = 0, tilt = 0, held = null, waiting = false;
  let touched = matchMedia('(prefers-reduced-motion: reduce)').matches;

  function placed(p) {  // across the picture, away from the viewer, down the picture
    const q = new Float32Array(p.length);
    const [ct, st, cv, sv] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
    for (let i = 0; i < p.length; i += 3) {  // x to the right, y away from the viewer, z up
      const x = ct * p[i] - st * p[i + 1], y = st * p[i] + ct * p[i + 1], z = p[i + 2];
      q[i] = size / 2 + scale * x;
      q[i + 1] = cv * y + sv * z;
      q[i + 2] = size / 2 - scale * (cv * z - sv * y);
    }
    return q;
  }
  function drawMarks() {  // in the color of the page's text
    context.fillStyle = getComputedStyle(canvas).color;
    context.font = '14px sans-serif';
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (const [letter, direction] of marks) {
      const [x, away, y] = placed(direction.map(v => 1.1 * v));
      context.globalAlpha = Math.abs(away) > 0.77 ? 0 : 1;  // not before or behind the liver
      context.fillText(letter, x, y);
    }
  }
  function drawMesh(mesh) {
    const q = placed(mesh.points);
    const faces = [];
    for (let k = 0; k < mesh.triangles.length; k += 3) {
      const [a, b, c] = [0, 1, 2].map(j => 3 * mesh.triangles[k + j]);
      const ux = q[b] - q[a], uz = q[b + 2] - q[a + 2], vx = q[c] - q[a], vz = q[c + 2] - q[a + 2];
      const area = ux * vz - uz * vx;
      if (area * mesh.winding <= 0) continue;  // seen from behind
      const uy = scale * (q[b + 1] - q[a + 1]), vy = scale * (q[c + 1] - q[a + 1]);
      const nx = uy * vz - uz * vy, nz = ux * vy - uy * vx, length = Math.hypot(nx, area, nz);
      const lit = (0.8 * Math.abs(area) - mesh.winding * (0.4 * nx + 0.45 * nz)) / length;
      faces.push([q[a + 1] + q[b + 1] + q[c + 1], a, b, c, 0.35 + 0.65 * Math.max(0, lit)]);
    }
    faces.sort((one, other) => other[0] - one[0]);
    brush.clearRect(0, 0, size, size);
    for (const [, a, b, c, light] of faces) {
      const color = `rgb(${mesh.color.map(v => Math.min(255, Math.round(v * light))).join()})`;
      brush.fillStyle = brush.strokeStyle = color;
      brush.beginPath();
      brush.moveTo(q[a], q[a + 2]);
      brush.lineTo(q[b], q[b + 2]);
      brush.lineTo(q[c], q[c + 2]);
      brush.closePath();
      brush.fill();
      brush.stroke();
    }
    context.globalAlpha = mesh.opacity;
    context.drawImage(layer, 0, 0);
  }
  function draw() {
    waiting = false;
    context.clearRect(0, 0, size, size);
    meshes.filter((_, k) => boxes[k].checked).forEach(drawMesh);
    drawMarks();
  }
  function drawSoon() {
    if (!waiting) requestAnimationFrame(draw);  // one picture for all moves since the last
    waiting = true;
  }
  function turnBy(right, down) {
    turn += right;
    tilt = Math.max(-1.5, Math.min(1.5, tilt - down));
    touched = true;
    drawSoon();
  }
  canvas.onpointerdown = e => {
    held = [e.clientX, e.clientY];
    touched = true;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(e.pointerId);
  };
  canvas.onpointerup = () => { held = null; };
  canvas.onpointermove = e => {
    if (!held) return;
    turnBy((e.clientX - held[0]) * 0.01, (e.clientY - held[1]) * 0.01);
    held = [e.clientX, e.clientY];
  };
  canvas.onkeydown = e => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!way[e.key]) return;
    turnBy(...way[e.key].map(step => step * 0.1));
    e.preventDefault();
    e.stopPropagation();
  };
  boxes.forEach(box => { box.onchange = drawSoon; });
  draw();
  const timer = setInterval(() => {  // turns by itself until it is touched or gone
    if (touched || !canvas.isConnected) { clearInterval(timer); return; }
    turn += 0.05;
    draw();
  }, 80);
}

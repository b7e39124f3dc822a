// The results page: shows the rows that the filter leaves, ROWS_PER_PAGE at a time. Names become text nodes and encoded
// addresses, so a name is never read as HTML.
const { rows, rowsPerPage } = JSON.parse(document.getElementById("data").textContent);
const filter = document.getElementById("filter");
const previous = document.getElementById("previous");
const next = document.getElementById("next");
let page = 0;

function figureOf([source, target, result]) {
  const image = document.createElement("img");
  image.className = "strip";
  image.src = "strips/" + encodeURIComponent(result.replace(/\.[^.]*$/, ".jpg"));
  image.loading = "lazy";
  image.alt = `${source} in the pose of ${target}`;

  const link = document.createElement("a");
  link.href = encodeURIComponent(result);
  link.append(image);

  const caption = document.createElement("figcaption");
  caption.textContent = `${source} \u2192 ${target}`;

  const figure = document.createElement("figure");
  figure.append(link, caption);
  return figure;
}

function show() {
  const wanted = filter.value.toLowerCase();
  const found = rows.filter(([source, target]) => `${source} ${target}`.toLowerCase().includes(wanted));
  const pages = Math.max(1, Math.ceil(found.length / rowsPerPage));
  page = Math.min(Math.max(page, 0), pages - 1);
  document.getElementById("position").textContent = `page ${page + 1} of ${pages}, ${found.length} results`;
  previous.disabled = page === 0;
  next.disabled = page === pages - 1;
  const shown = found.slice(page * rowsPerPage, (page + 1) * rowsPerPage);
  document.getElementById("rows").replaceChildren(...shown.map(figureOf));
}

function turn(pages) {
  page += pages;
  show();
  scrollTo(0, 0);
}

filter.oninput = () => { page = 0; show(); };
previous.onclick = () => turn(-1);
next.onclick = () => turn(1);
show();

// A pointer over a mark, a row or a name in the chart's key lights up the others, and shows a mark's figures.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
for (const title of document.querySelectorAll(".chart g[data-way] > title")) {
  title.parentNode.dataset.said = title.textContent;
  title.remove();
}
function light(event) {
  const found = event.target.closest("[data-way], [data-label]");
  const way = found && (found.dataset.way || found.dataset.label);
  for (const one of document.querySelectorAll(".lit")) one.classList.remove("lit");
  tip.hidden = true;
  if (!way) return;
  for (const one of document.querySelectorAll(`[data-way="${way}"], [data-label="${way}"]`)) one.classList.add("lit");
  if (!found.closest("svg")) return;
  tip.textContent = found.closest("svg").querySelector(`[data-way="${way}"]`).dataset.said;
  tip.hidden = false;
  const edge = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${Math.max(8, Math.min(event.pageX + 14, edge))}px`;
  tip.style.top = `${event.pageY + 14}px`;
}
document.addEventListener("pointerover", light);
document.addEventListener("click", light);

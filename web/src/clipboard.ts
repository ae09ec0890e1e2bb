/** Copying text; says whether it was copied. */
export async function copied(text: string): Promise<boolean> {
  if (window !== window.top) return copiedTheOldWay(text); // frames of notebooks have no clipboard of their own
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedTheOldWay(text);
  }
}

function copiedTheOldWay(text: string): boolean {
  const area = document.createElement("textarea");
  area.value = text;
  area.style.position = "fixed";
  area.style.opacity = "0";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

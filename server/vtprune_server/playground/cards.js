// The answers side by side: a card for each method, and one for every token.
import { answer, explain } from "./server.js";

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// What is kept of each view of an image.
export function overlays(found) {
  return found.views.filter((view) => view.overlay).map((view) => element("img", {
    src: view.overlay, alt: `${view.kept.length} of ${view.rows * view.columns} patches kept`,
  }));
}

export class Card {
  constructor(title, vtprune) {
    this.vtprune = vtprune;
    this.pictures = element("div", { className: "pictures" });
    this.output = element("output");
    this.facts = element("dl");
    this.section = element("section", {}, element("h2", { textContent: title }),
      this.pictures, this.output, this.facts);
    this.section.dataset.method = vtprune.method ?? "every";
  }

  async fill(model, image, question) {
    this.section.ariaBusy = true;
    await this.answered(model, image, question).finally(() => { this.section.ariaBusy = false; });
  }

  async answered(model, image, question) {
    const found = await explain(image, question, this.vtprune);
    this.pictures.replaceChildren(...overlays(found));
    const start = performance.now();
    let first = null, usage = null;
    for await (const chunk of answer(model, image, question, this.vtprune)) {
      usage = chunk.usage ?? usage;
      const piece = chunk.choices.map((choice) => choice.delta.content ?? "").join("");
      if (piece && first === null) first = performance.now() - start;
      this.output.textContent += piece;
    }
    this.show({
      "visual tokens": `${found.kept.length} of ${found.original}`,
      "prompt tokens": usage.prompt_tokens,
      "first token": first === null ? "none" : `${Math.round(first)} ms`,
      "in all": `${Math.round(performance.now() - start)} ms`,
    });
  }

  show(rows) {
    this.facts.replaceChildren(...Object.entries(rows).flatMap(([term, value]) => [
      element("dt", { textContent: term }), element("dd", { textContent: value })]));
  }
}

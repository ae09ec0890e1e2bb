/** Names of lines with their stroke; each can be switched off and on. */

interface Props {
  names: string[];
  colours: number[];
  dashes: (string | undefined)[];
  about?: (string | undefined)[];
  hidden: Set<number>;
  toggle: (index: number) => void;
}

export function Legend({ names, colours, dashes, about, hidden, toggle }: Props) {
  return (
    <ul class="lines-legend" aria-label="Lines; each can be hidden">
      {names.map((name, i) => (
        <li key={i}>
          <button type="button" data-picture={hidden.has(i) ? "no" : undefined} aria-pressed={!hidden.has(i)} title={about?.[i]} onClick={() => toggle(i)}>
            <svg class={`chart-line series-${colours[i]}`} width="28" height="10" aria-hidden="true">
              <path class="stroke" d="M1 5H27" stroke-dasharray={dashes[i]} />
            </svg>
            <bdi>{name}</bdi>
          </button>
        </li>
      ))}
    </ul>
  );
}

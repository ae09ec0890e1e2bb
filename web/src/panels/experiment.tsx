/** The list of changes that a person puts together; panels that show something changeable offer it here. */

import { type ComponentChildren, createContext } from "preact";
import { useCallback, useContext, useLayoutEffect, useMemo, useState } from "preact/hooks";
import type { Intervention } from "../contract.ts";
import { type Change, changesOf, type Dictionaries, parametersOf, wantedInHash, withChange, without } from "../model/experiment.ts";
import { addressWith } from "../model/address.ts";

export interface ExperimentHandle {
  wanted: Intervention;
  has(change: Change): boolean;
  /** Puts changes into the list, all of them or none: those of a supernode act together. */
  add(changes: Change[], dictionaries?: Dictionaries): void;
  remove(changes: Change[]): void;
}

const ExperimentContext = createContext<ExperimentHandle | null>(null);

/** The list of changes, or null where nothing can be put together. */
export function useExperiment(): ExperimentHandle | null {
  return useContext(ExperimentContext);
}

export function Experiment({ children }: { children: ComponentChildren }) {
  const [wanted, setWanted] = useState(() => wantedInHash(location.hash));
  useLayoutEffect(() => {
    const follow = () =>
      setWanted((now) => {
        const named = wantedInHash(location.hash);
        // Other panels write the address as well, and not all of them keep what is not theirs.
        return changesOf(named).length === 0 || spelled(named) === spelled(now) ? now : named;
      });
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const change = useCallback((next: (now: Intervention) => Intervention) => {
    setWanted((now) => {
      const then = next(now);
      location.hash = addressWith(location.hash, parametersOf(then));
      return then;
    });
  }, []);
  const handle = useMemo(
    (): ExperimentHandle => ({
      wanted,
      has: ({ kind, text }) => changesOf(wanted).some((one) => one.kind === kind && one.text === text),
      add: (changes, dictionaries) => change((now) => ({ ...changes.reduce(withChange, now), ...dictionaries })),
      remove: (changes) => change((now) => changes.reduce(without, now)),
    }),
    [wanted, change],
  );
  return <ExperimentContext.Provider value={handle}>{children}</ExperimentContext.Provider>;
}

const spelled = (wanted: Intervention) => JSON.stringify(parametersOf(wanted));

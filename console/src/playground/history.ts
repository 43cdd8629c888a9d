/** Conversations, kept in this browser and nowhere else. Keys, images, recordings and speech are never kept. */
import { signal } from "@preact/signals";
import type { Draft, Turn } from "./turns";

export interface Conversation {
  id: string;
  at: number;
  draft: Draft;
  turns: Turn[];
}

const NAME = "tollgate.playground.history";
const MOST = 50;

export const conversations = signal<Conversation[]>(read());

export function keep(conversation: Conversation): void {
  const turns = conversation.turns.map(({ images: _, sound: __, file: ___, ...turn }) => turn);
  const others = conversations.value.filter(({ id }) => id !== conversation.id);
  write([{ ...conversation, turns }, ...others].slice(0, MOST));
}

export const restore = (kept: Conversation[]): void => write(kept);

function read(): Conversation[] {
  try {
    return JSON.parse(localStorage.getItem(NAME) ?? "[]");
  } catch {
    return [];
  }
}

/** When storage is full, the oldest conversations make room. */
function write(kept: Conversation[]): void {
  conversations.value = kept;
  for (let count = kept.length; count >= 0; count--) {
    try {
      localStorage.setItem(NAME, JSON.stringify(kept.slice(0, count)));
      return;
    } catch {}
  }
}

// Where the fragments of an mp4 end: a finished film has an index behind them, which a player that streams refuses.

const HEADER = 8;
const LONG_HEADER = 16;

/** Walks over the boxes of a file that is read in pieces from its first byte, or from the start of a fragment. */
export class Boxes {
  #next;
  #movies = 0;
  /** Whether the index was reached. */
  ended = false;

  /** @param {number} at where the first piece begins, in bytes */
  constructor(at = 0) {
    this.#next = at;
    this.#movies = at ? 1 : 0;
  }

  /**
   * How many bytes of the next piece can be played. The rest is the index, or a header that needs more bytes.
   *
   * @param {Uint8Array} piece
   * @param {number} at where the piece begins, in bytes
   */
  usable(piece, at) {
    const view = new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
    while (this.#next < at + piece.length) {
      const start = this.#next - at;
      const left = piece.length - start;
      const size = left < HEADER ? 0 : view.getUint32(start);
      if (left < HEADER || (size === 1 && left < LONG_HEADER)) return start;
      const kind = String.fromCharCode(...piece.subarray(start + 4, start + HEADER));
      if (kind === "mfra" || (kind === "moov" && this.#movies++)) {
        this.ended = true;
        return start;
      }
      this.#next += Math.max(HEADER, size === 1 ? Number(view.getBigUint64(start + HEADER)) : size);
    }
    return piece.length;
  }
}

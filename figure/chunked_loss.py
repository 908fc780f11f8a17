"""Draws chunked-loss.svg, the logits a few rows at a time, and what is kept of them.

Run it as `python figure/chunked_loss.py`.
"""

from style import GRAY, IMAGE, MATCH, OTHER, TEXT, arrow, box, canvas, cell, save, text, tint, vector

N, CHUNK, CELL = 9, 3, 24
LEFT, TOP = 120, 66

ax = canvas(400)
for i in range(N):
    for j in range(N):
        here = i // CHUNK == 1
        fill = tint(MATCH, 0.55 if here else 0.25) if i == j else OTHER if here else "white"
        cell(ax, LEFT + j * CELL, TOP + i * CELL, CELL, CELL, fill, edge=tint(GRAY, 0.35))
for chunk in range(N // CHUNK):
    y = TOP + chunk * CHUNK * CELL
    vector(ax, LEFT - 34, y, 16, CHUNK * CELL - 2, [0.5, 0.2, 0.8], IMAGE)
    vector(ax, LEFT + N * CELL + 40, y, 16, CHUNK * CELL - 2, [0.3, 0.6, 0.4] if chunk < 2 else [0.05] * 3, IMAGE)
    arrow(ax, (LEFT + N * CELL + 6, y + 36), (LEFT + N * CELL + 34, y + 36))
vector(ax, LEFT, TOP - 34, N * CELL, 16, [0.4, 0.7, 0.2, 0.5, 0.9, 0.3, 0.6, 0.2, 0.8], TEXT)
text(ax, LEFT + N * CELL / 2, TOP - 50, "N text features", 12)
text(ax, LEFT - 48, TOP + N * CELL / 2, "N image features", 12, rotation=90, va="center")
text(ax, LEFT + N * CELL / 2, TOP + 4.5 * CELL, "the chunk that exists now", 11, va="center", weight="bold")
text(ax, LEFT + N * CELL / 2, TOP + 1.5 * CELL, "was here, is gone", 11, GRAY, va="center")
text(ax, LEFT + N * CELL / 2, TOP + 7.5 * CELL, "does not exist yet", 11, GRAY, va="center")
text(ax, LEFT + N * CELL + 48, TOP - 16, "rows: done", 11.5)

x = 478
text(ax, x + 108, TOP - 16, "columns: one part for each chunk", 11.5)
for chunk in range(N // CHUNK):
    values = [0.3, 0.5, 0.2, 0.8, 0.4, 0.6, 0.3, 0.7, 0.5] if chunk < 2 else [0.02] * 9
    y = TOP + chunk * CHUNK * CELL + 28
    vector(ax, x, y, N * CELL, 16, values[chunk:] + values[:chunk], TEXT)
    arrow(ax, (x + N * CELL + 6, y + 8), (x + N * CELL + 34, y + 8), (x + N * CELL + 34, 300))
arrow(ax, (x + N * CELL + 34, 286), (x + N * CELL + 34, 346), (x + N * CELL + 6, 346))
vector(ax, x, 338, N * CELL, 16, [0.6, 0.8, 0.5, 0.9, 0.7, 0.8, 0.6, 0.9, 0.7], TEXT)
text(ax, x + 108, 370, "their logsumexp: columns done", 11.5)
box(ax, LEFT, 330, N * CELL + 56, 44, MATCH, "loss = mean of (row + column) / 2\nminus the true pair's logit", 11.5)
arrow(ax, (x - 8, 346), (LEFT + N * CELL + 64, 346))
save(ax, __file__, "The chunked loss")

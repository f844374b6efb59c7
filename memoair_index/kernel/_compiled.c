/* The scoring kernel, compiled. `plain.py` says the same with NumPy, sum for sum in the same order; a test holds both
 * equal. What comes from a file is never trusted: every number of an item is checked before it is used. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define MOST_STEPS 8
/* Of scratch memory for each item: a cell, and three numbers. */
#define SCRATCH_BYTES ((Py_ssize_t)(sizeof(Cell) + 3 * sizeof(int32_t)))

/* As `memoair_index.items.ITEM`. */
typedef struct {
    double occurred_at;
    int32_t group, previous, following, speaker, length;
    uint32_t cues;
    float scale;
    uint32_t reserved;
} Item;

/* The items of the file and those of the tail behind it, as one row. */
typedef struct {
    const Item *base, *tail;
    Py_ssize_t split, size;
} Items;

/* Where one term stands: in which items, and how often. */
typedef struct {
    const int32_t *items;
    const uint8_t *counts;
    Py_ssize_t size;
    int32_t first; /* the number of the item that these are counted from */
    float weight;
    int word;
} Postings;

/* What is added up for one item, side by side, so that it is fetched at once; zero between two calls. */
typedef struct {
    float best, pooled, own_sum, pooled_sum, bonus;
} Cell;

/* A cell for each item, and room for the numbers of all. */
typedef struct {
    Cell *cells;
    int32_t *touched, *reached, *candidates;
} Scratch;

typedef struct {
    float k1, b, average;
    float decays[MOST_STEPS];
    int steps;
    float own_weight, pooled_weight, speaker_weight;
    int32_t speaker, only_group, without_group;
    int linked, removed; /* whether any item has neighbours, and whether any was removed */
} Options;

typedef struct {
    float score;
    int32_t item;
} Candidate;

static inline const Item *item_at(const Items *items, Py_ssize_t number) {
    return number < items->split ? items->base + number : items->tail + (number - items->split);
}

static inline int is_item(const Items *items, int64_t number) { return number >= 0 && number < items->size; }

/* Whether a stands behind b in the ranking. */
static inline int is_worse(const Candidate *a, const Candidate *b) {
    return a->score < b->score || (a->score == b->score && a->item > b->item);
}

/* A word's best impact on each item that holds it or one of its neighbours; returns how many items. */
static Py_ssize_t gather(const Items *items, const Postings *postings, const Options *o, Scratch *s, Py_ssize_t found) {
    const float shortest = o->k1 * (1.0f - o->b), longer = o->k1 * o->b / o->average;
    for (Py_ssize_t i = 0; i < postings->size; i++) {
        int64_t number = (int64_t)postings->items[i] + postings->first;
        if (!is_item(items, number)) continue;
        float count = (float)postings->counts[i];
        float length = (float)item_at(items, number)->length;
        float norm = shortest + longer * length;
        float impact = postings->weight * (((o->k1 + 1.0f) * count) / (count + norm));
        Cell *cell = s->cells + number;
        if (impact > cell->best) {
            if (cell->best == 0.0f) s->touched[found++] = (int32_t)number;
            cell->best = impact;
        }
    }
    return found;
}

/* Adds a word's best impact around an item to its sum. */
static inline void add_pooled(Scratch *s, int32_t number, float impact, Py_ssize_t *candidates) {
    if (s->cells[number].pooled_sum == 0.0f) s->candidates[(*candidates)++] = number;
    s->cells[number].pooled_sum += impact;
}

/* Notes a word's impact around an item, if it is the best so far; returns how many items were reached. */
static inline Py_ssize_t reach(Scratch *s, int32_t number, float impact, Py_ssize_t reached) {
    Cell *cell = s->cells + number;
    if (impact > cell->pooled) {
        if (cell->pooled == 0.0f) s->reached[reached++] = number;
        cell->pooled = impact;
    }
    return reached;
}

/* Adds a word's impacts to the sums of the items that hold it and, weaker with each step, of those around. */
static void spread(const Items *items, const Options *o, Scratch *s, Py_ssize_t found, Py_ssize_t *candidates) {
    Py_ssize_t reached = 0;
    for (Py_ssize_t i = 0; i < found; i++) {
        int32_t number = s->touched[i];
        float impact = s->cells[number].best;
        s->cells[number].own_sum += impact;
        if (!o->linked) { /* as documents that stand alone: nothing is reached but themselves */
            s->cells[number].best = 0.0f;
            add_pooled(s, number, impact, candidates);
            continue;
        }
        reached = reach(s, number, impact, reached);
        for (int direction = 0; direction < 2; direction++) {
            int32_t at = number;
            for (int step = 0; step < o->steps; step++) {
                const Item *here = item_at(items, at);
                at = direction ? here->following : here->previous;
                if (!is_item(items, at)) break;
                reached = reach(s, at, impact * o->decays[step], reached);
            }
        }
    }
    for (Py_ssize_t i = 0; i < reached; i++) {
        Cell *cell = s->cells + s->reached[i];
        add_pooled(s, s->reached[i], cell->pooled, candidates);
        cell->pooled = cell->best = 0.0f; /* whoever was touched was reached */
    }
}

static void sift_down(Candidate *heap, Py_ssize_t size, Py_ssize_t at) {
    for (;;) {
        Py_ssize_t child = 2 * at + 1;
        if (child >= size) return;
        if (child + 1 < size && is_worse(heap + child + 1, heap + child)) child++;
        if (!is_worse(heap + child, heap + at)) return;
        Candidate other = heap[child];
        heap[child] = heap[at];
        heap[at] = other;
        at = child;
    }
}

static void sift_up(Candidate *heap, Py_ssize_t at) {
    while (at) {
        Py_ssize_t parent = (at - 1) / 2;
        if (!is_worse(heap + at, heap + parent)) return;
        Candidate other = heap[parent];
        heap[parent] = heap[at];
        heap[at] = other;
        at = parent;
    }
}

/* Scores all candidates and keeps the best in a heap whose root is the worst of them; clears their cells. */
static Py_ssize_t choose(const Items *items, const Options *o, Scratch *s, Py_ssize_t candidates, Candidate *heap,
                         Py_ssize_t limit, float *own, float *pooled) {
    Py_ssize_t kept = 0;
    int asks_items = o->removed || o->speaker >= 0 || o->only_group >= 0 || o->without_group >= 0;
    for (Py_ssize_t i = 0; i < candidates; i++) {
        int32_t number = s->candidates[i];
        const Cell *cell = s->cells + number;
        Candidate candidate = {o->own_weight * cell->own_sum, number};
        candidate.score += o->pooled_weight * cell->pooled_sum;
        candidate.score += cell->bonus;
        if (asks_items) {
            const Item *item = item_at(items, number);
            if (item->group < 0 || (o->only_group >= 0 && item->group != o->only_group) ||
                (o->without_group >= 0 && item->group == o->without_group))
                continue;
            if (o->speaker >= 0 && item->speaker == o->speaker) candidate.score += o->speaker_weight;
        }
        if (kept < limit) {
            heap[kept] = candidate;
            sift_up(heap, kept++);
        } else if (limit && is_worse(heap, &candidate)) {
            heap[0] = candidate;
            sift_down(heap, kept, 0);
        }
    }
    for (Py_ssize_t i = 0; i < kept; i++) {
        own[i] = s->cells[heap[i].item].own_sum;
        pooled[i] = s->cells[heap[i].item].pooled_sum;
    }
    for (Py_ssize_t i = 0; i < candidates; i++)
        s->cells[s->candidates[i]].own_sum = s->cells[s->candidates[i]].pooled_sum =
            s->cells[s->candidates[i]].bonus = 0.0f;
    return kept;
}

static Py_ssize_t score(const Items *items, const Postings *postings, Py_ssize_t lists, const int32_t *bonus_items,
                        const float *bonus_values, Py_ssize_t bonuses, const Options *o, Scratch *s, Candidate *heap,
                        Py_ssize_t limit, float *own, float *pooled) {
    Py_ssize_t candidates = 0;
    for (Py_ssize_t list = 0; list < lists;) {
        int word = postings[list].word;
        Py_ssize_t found = 0;
        for (; list < lists && postings[list].word == word; list++)
            found = gather(items, postings + list, o, s, found);
        spread(items, o, s, found, &candidates);
    }
    for (Py_ssize_t i = 0; i < bonuses; i++) {
        int32_t number = bonus_items[i];
        if (!is_item(items, number) || !(bonus_values[i] > 0.0f)) continue;
        Cell *cell = s->cells + number;
        if (cell->pooled_sum == 0.0f && cell->bonus == 0.0f) s->candidates[candidates++] = number;
        cell->bonus += bonus_values[i];
    }
    return choose(items, o, s, candidates, heap, limit, own, pooled);
}

/* ---- Python ---- */

typedef struct {
    Py_buffer *views;
    Py_ssize_t count, room;
} Buffers;

static void release_all(Buffers *buffers) {
    while (buffers->count) PyBuffer_Release(&buffers->views[--buffers->count]);
    PyMem_Free(buffers->views);
}

static Py_buffer *borrow(Buffers *buffers, PyObject *object, int flags) {
    if (buffers->count == buffers->room) {
        PyErr_SetString(PyExc_SystemError, "more buffers than were counted");
        return NULL;
    }
    Py_buffer *view = &buffers->views[buffers->count];
    if (PyObject_GetBuffer(object, view, flags)) return NULL;
    buffers->count++;
    return view;
}

static int read_postings(PyObject *lists, Postings *postings, Buffers *buffers) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(lists); i++) {
        PyObject *items, *counts;
        Postings *one = postings + i;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(lists, i), "iOOif", &one->word, &items, &counts, &one->first,
                              &one->weight))
            return -1;
        Py_buffer *item_view = borrow(buffers, items, PyBUF_SIMPLE);
        Py_buffer *count_view = item_view ? borrow(buffers, counts, PyBUF_SIMPLE) : NULL;
        if (!count_view) return -1;
        one->items = item_view->buf;
        one->counts = count_view->buf;
        one->size = item_view->len / (Py_ssize_t)sizeof(int32_t);
        if (count_view->len != one->size || !isfinite(one->weight)) {
            PyErr_SetString(PyExc_ValueError, "postings that don't fit together");
            return -1;
        }
    }
    return 0;
}

static int read_decays(PyObject *decays, Options *o) {
    PyObject *fast = PySequence_Fast(decays, "decays are a sequence");
    if (!fast) return -1;
    o->steps = (int)PySequence_Fast_GET_SIZE(fast);
    if (o->steps > MOST_STEPS) {
        PyErr_SetString(PyExc_ValueError, "too many decays");
        o->steps = 0;
    }
    for (int i = 0; i < o->steps; i++) o->decays[i] = (float)PyFloat_AsDouble(PySequence_Fast_GET_ITEM(fast, i));
    Py_DECREF(fast);
    return PyErr_Occurred() ? -1 : 0;
}

static void lay_out(Scratch *s, char *memory, Py_ssize_t size) {
    s->cells = (Cell *)memory;
    s->touched = (int32_t *)(memory + size * (Py_ssize_t)sizeof(Cell));
    s->reached = s->touched + size;
    s->candidates = s->reached + size;
}

static PyObject *to_result(const Candidate *heap, Py_ssize_t kept, const float *own, const float *pooled) {
    PyObject *items = PyBytes_FromStringAndSize(NULL, kept * 4);
    if (!items) return NULL;
    int32_t *numbers = (int32_t *)PyBytes_AS_STRING(items);
    for (Py_ssize_t i = 0; i < kept; i++) numbers[i] = heap[i].item;
    return Py_BuildValue("Ny#y#", items, (const char *)own, kept * 4, (const char *)pooled, kept * 4);
}

static PyObject *kernel_score(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *base, *tail, *lists, *bonus_items, *bonus_values, *scratch_cells, *decays;
    Options o;
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(args, "OOOO!OOO(fff)(fffi)(iipp)n", &base, &tail, &scratch_cells, &PyList_Type, &lists,
                          &bonus_items, &bonus_values, &decays, &o.k1, &o.b, &o.average, &o.own_weight,
                          &o.pooled_weight, &o.speaker_weight, &o.speaker, &o.only_group, &o.without_group, &o.linked, &o.removed, &limit))
        return NULL;
    if (read_decays(decays, &o)) return NULL;
    PyObject *result = NULL;
    Py_ssize_t size = PyList_GET_SIZE(lists);
    Candidate *heap = NULL;
    float *sums = NULL;
    Postings *postings = PyMem_Malloc((size + 1) * sizeof(Postings));
    Buffers buffers = {PyMem_Malloc((2 * size + 5) * sizeof(Py_buffer)), 0, 2 * size + 5};
    if (!postings || !buffers.views) {
        PyErr_NoMemory();
        goto done;
    }
    Py_buffer *base_view = borrow(&buffers, base, PyBUF_SIMPLE);
    Py_buffer *tail_view = base_view ? borrow(&buffers, tail, PyBUF_SIMPLE) : NULL;
    Py_buffer *cells = tail_view ? borrow(&buffers, scratch_cells, PyBUF_WRITABLE) : NULL;
    Py_buffer *number_view = cells ? borrow(&buffers, bonus_items, PyBUF_SIMPLE) : NULL;
    Py_buffer *value_view = number_view ? borrow(&buffers, bonus_values, PyBUF_SIMPLE) : NULL;
    if (!value_view || read_postings(lists, postings, &buffers)) goto done;
    Items items = {base_view->buf, tail_view->buf, base_view->len / (Py_ssize_t)sizeof(Item), 0};
    items.size = items.split + tail_view->len / (Py_ssize_t)sizeof(Item);
    Py_ssize_t room = cells->len / SCRATCH_BYTES;
    if (room < items.size || number_view->len != value_view->len || limit < 0) {
        PyErr_SetString(PyExc_ValueError, "buffers that don't fit together");
        goto done;
    }
    if (limit > items.size) limit = items.size;
    heap = PyMem_Malloc((limit ? limit : 1) * sizeof(Candidate));
    sums = PyMem_Malloc((limit ? limit : 1) * 2 * sizeof(float));
    if (!heap || !sums) {
        PyErr_NoMemory();
        goto done;
    }
    Scratch scratch;
    lay_out(&scratch, cells->buf, room);
    Py_ssize_t kept;
    Py_BEGIN_ALLOW_THREADS
    kept = score(&items, postings, size, number_view->buf, value_view->buf, number_view->len / 4, &o, &scratch, heap,
                 limit, sums, sums + limit);
    Py_END_ALLOW_THREADS
    result = to_result(heap, kept, sums, sums + limit);
done:
    release_all(&buffers);
    PyMem_Free(postings);
    PyMem_Free(heap);
    PyMem_Free(sums);
    return result;
}

static PyMethodDef methods[] = {
    {"score", kernel_score, METH_VARARGS, "The best items for weighted postings; see memoair_index.kernel."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_doc = "The scoring kernel.", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModule_Create(&definition); }

/* The scoring kernel, compiled. `plain.py` says the same with NumPy, sum for sum in the same order; a test holds both
 * equal. What comes from a file is never trusted: every number of an item is checked before it is used. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

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
    float best, pooled, pooled_sum, bonus;
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
    float pooled_weight, speaker_weight;
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
                         Py_ssize_t limit, float *pooled, float *bonus) {
    Py_ssize_t kept = 0;
    int asks_items = o->removed || o->speaker >= 0 || o->only_group >= 0 || o->without_group >= 0;
    for (Py_ssize_t i = 0; i < candidates; i++) {
        int32_t number = s->candidates[i];
        const Cell *cell = s->cells + number;
        Candidate candidate = {o->pooled_weight * cell->pooled_sum, number};
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
        pooled[i] = s->cells[heap[i].item].pooled_sum;
        bonus[i] = s->cells[heap[i].item].bonus;
    }
    for (Py_ssize_t i = 0; i < candidates; i++)
        s->cells[s->candidates[i]].pooled_sum = s->cells[s->candidates[i]].bonus = 0.0f;
    return kept;
}

static Py_ssize_t score(const Items *items, const Postings *postings, Py_ssize_t lists, const int32_t *bonus_items,
                        const float *bonus_values, Py_ssize_t bonuses, const Options *o, Scratch *s, Candidate *heap,
                        Py_ssize_t limit, float *pooled, float *bonus) {
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
    return choose(items, o, s, candidates, heap, limit, pooled, bonus);
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

static PyObject *to_result(const Candidate *heap, Py_ssize_t kept, const float *pooled, const float *bonus) {
    PyObject *items = PyBytes_FromStringAndSize(NULL, kept * 4);
    if (!items) return NULL;
    int32_t *numbers = (int32_t *)PyBytes_AS_STRING(items);
    for (Py_ssize_t i = 0; i < kept; i++) numbers[i] = heap[i].item;
    return Py_BuildValue("Ny#y#", items, (const char *)pooled, kept * 4, (const char *)bonus, kept * 4);
}

static PyObject *kernel_score(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *base, *tail, *lists, *bonus_items, *bonus_values, *scratch_cells, *decays;
    Options o;
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(args, "OOOO!OOO(fff)(ffi)(iipp)n", &base, &tail, &scratch_cells, &PyList_Type, &lists,
                          &bonus_items, &bonus_values, &decays, &o.k1, &o.b, &o.average, &o.pooled_weight,
                          &o.speaker_weight, &o.speaker, &o.only_group, &o.without_group, &o.linked, &o.removed,
                          &limit))
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

/* ---- the second look ---- */

#define MOST_CUES 8

/* Of what the best are looked at for again. */
typedef struct {
    float pooled_weight, meaning_weight, speaker_weight;
    int32_t speaker;
    int cues;
    uint32_t masks[MOST_CUES];
    float cue_weights[MOST_CUES];
    const float *question;
    Py_ssize_t dimensions;
} Look;

/* The sum of products, in eight rows that the processor adds side by side. */
static float product(const int8_t *vector, const float *question, Py_ssize_t dimensions) {
    float rows[8] = {0};
    Py_ssize_t i = 0;
    for (; i + 8 <= dimensions; i += 8)
        for (int row = 0; row < 8; row++) rows[row] += (float)vector[i + row] * question[i + row];
    for (; i < dimensions; i++) rows[0] += (float)vector[i] * question[i];
    return ((rows[0] + rows[1]) + (rows[2] + rows[3])) + ((rows[4] + rows[5]) + (rows[6] + rows[7]));
}

static float look_at(const Item *item, const int8_t *vector, float pooled, float bonus, const Look *look) {
    float score = look->pooled_weight * pooled + bonus;
    if (vector) {
        float cosine = product(vector, look->question, look->dimensions) * item->scale;
        if (isfinite(cosine)) score += look->meaning_weight * cosine;
    }
    for (int i = 0; i < look->cues; i++)
        if (item->cues & look->masks[i]) score += look->cue_weights[i];
    if (look->speaker >= 0 && item->speaker == look->speaker) score += look->speaker_weight;
    return score;
}

static int by_rank(const void *a, const void *b) { return is_worse(a, b) ? 1 : is_worse(b, a) ? -1 : 0; }

static int read_cues(PyObject *cues, Look *look) {
    PyObject *fast = PySequence_Fast(cues, "cues are a sequence");
    if (!fast) return -1;
    look->cues = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast) && i < MOST_CUES; i++) {
        if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(fast, i), "If", look->masks + i, look->cue_weights + i)) break;
        look->cues++;
    }
    Py_DECREF(fast);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *kernel_rank(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *objects[8], *cues;
    Look look;
    if (!PyArg_ParseTuple(args, "OOOOOOOO(fffi)O", objects, objects + 1, objects + 2, objects + 3, objects + 4,
                          objects + 5, objects + 6, objects + 7, &look.pooled_weight, &look.meaning_weight,
                          &look.speaker_weight, &look.speaker, &cues))
        return NULL;
    if (read_cues(cues, &look)) return NULL;
    PyObject *result = NULL;
    Candidate *ranked = NULL;
    Py_buffer views[8];
    int held = 0;
    for (; held < 8; held++)
        if (PyObject_GetBuffer(objects[held], views + held, PyBUF_SIMPLE)) goto done;
    /* items in the file and behind it, vectors in the file and behind it, numbers, pooled and bonus; question */
    Items items = {views[0].buf, views[1].buf, views[0].len / (Py_ssize_t)sizeof(Item), 0};
    items.size = items.split + views[1].len / (Py_ssize_t)sizeof(Item);
    Py_ssize_t size = views[4].len / 4;
    look.question = views[7].buf;
    look.dimensions = views[7].len / 4;
    int sums_fit = views[5].len == size * 4 && views[6].len == size * 4;
    if (!sums_fit || views[2].len != items.split * look.dimensions ||
        views[3].len != (items.size - items.split) * look.dimensions) {
        PyErr_SetString(PyExc_ValueError, "buffers that don't fit together");
        goto done;
    }
    if (!(ranked = PyMem_Malloc((size ? size : 1) * sizeof(Candidate)))) {
        PyErr_NoMemory();
        goto done;
    }
    const int32_t *numbers = views[4].buf;
    const float *pooled = views[5].buf, *bonus = views[6].buf;
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        int32_t number = numbers[i];
        if (!is_item(&items, number)) continue;
        const int8_t *vector = number < items.split
                                   ? (const int8_t *)views[2].buf + number * look.dimensions
                                   : (const int8_t *)views[3].buf + (number - items.split) * look.dimensions;
        ranked[kept].item = number;
        ranked[kept++].score = look_at(item_at(&items, number), look.dimensions ? vector : NULL, pooled[i], bonus[i],
                                       &look);
    }
    qsort(ranked, kept, sizeof(Candidate), by_rank);
    result = PyList_New(kept);
    for (Py_ssize_t i = 0; result && i < kept; i++) {
        PyObject *pair = Py_BuildValue("(id)", ranked[i].item, (double)ranked[i].score);
        if (!pair) {
            Py_CLEAR(result);
            break;
        }
        PyList_SET_ITEM(result, i, pair);
    }
done:
    while (held) PyBuffer_Release(&views[--held]);
    PyMem_Free(ranked);
    return result;
}

static PyMethodDef methods[] = {
    {"rank", kernel_rank, METH_VARARGS, "The best items in the order of all terms; see memoair_index.kernel."},
    {"score", kernel_score, METH_VARARGS, "The best items for weighted postings; see memoair_index.kernel."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_doc = "The scoring kernel.", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModule_Create(&definition); }

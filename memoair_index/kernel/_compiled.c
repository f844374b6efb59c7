/* The C kernel. `numpy_kernel.py` computes the same sums in the same order, and a test checks that both agree. Data
 * from a file is never trusted: every ordinal is checked before it is used. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define MAX_STEPS 8
/* Scratch memory per item: a cell, and an entry in each of three lists of ordinals. */
#define SCRATCH_BYTES ((Py_ssize_t)(sizeof(Cell) + 3 * sizeof(int32_t)))

/* The layout of `memoair_index.items.ITEM_DTYPE`. */
typedef struct {
    double occurred_at;
    int32_t group, previous, following, speaker, length;
    uint32_t cues;
    float scale;
    uint32_t reserved;
} Item;

/* The items of the file (base) and those added since (tail), addressed by one ordinal. */
typedef struct {
    const Item *base, *tail;
    Py_ssize_t base_size, size;
} Items;

/* The items that contain one term, and how often. */
typedef struct {
    const int32_t *items;
    const uint8_t *counts;
    Py_ssize_t size;
    int32_t first; /* what to add to `items` for ordinals */
    float weight;
    int word;
} Postings;

/* The sums of one item, side by side, so that they share a cache line; zero between two calls. */
typedef struct {
    float best, pooled, pooled_sum, bonus;
} Cell;

/* A cell for each item, and three lists with space for the ordinals of all items. */
typedef struct {
    Cell *cells;
    int32_t *touched, *reached, *candidates;
} Scratch;

typedef struct {
    float k1, b, average;
    float decays[MAX_STEPS];
    int steps;
    float pooled_weight, speaker_weight;
    int32_t speaker, only_group, exclude_group;
    int has_neighbors, has_removed; /* whether any item has a neighbor, and whether any was removed */
} ScoreOptions;

typedef struct {
    float score;
    int32_t item;
} Candidate;

static inline const Item *item_at(const Items *items, Py_ssize_t ordinal) {
    return ordinal < items->base_size ? items->base + ordinal : items->tail + (ordinal - items->base_size);
}

static inline int is_item(const Items *items, int64_t ordinal) { return ordinal >= 0 && ordinal < items->size; }

/* Return whether a ranks below b. */
static inline int is_worse(const Candidate *a, const Candidate *b) {
    return a->score < b->score || (a->score == b->score && a->item > b->item);
}

/* Raise the best impact of a word on each item that contains one of its terms; return the number of items so far. */
static Py_ssize_t gather_impacts(const Items *items, const Postings *postings, const ScoreOptions *o, Scratch *s,
                                 Py_ssize_t found) {
    const float shortest = o->k1 * (1.0f - o->b), longer = o->k1 * o->b / o->average;
    for (Py_ssize_t i = 0; i < postings->size; i++) {
        int64_t ordinal = (int64_t)postings->items[i] + postings->first;
        if (!is_item(items, ordinal)) continue;
        float count = (float)postings->counts[i];
        float length = (float)item_at(items, ordinal)->length;
        float norm = shortest + longer * length;
        float impact = postings->weight * (((o->k1 + 1.0f) * count) / (count + norm));
        Cell *cell = s->cells + ordinal;
        if (impact > cell->best) {
            if (cell->best == 0.0f) s->touched[found++] = (int32_t)ordinal;
            cell->best = impact;
        }
    }
    return found;
}

/* Add a word's pooled impact on an item to the item's sum. */
static inline void add_pooled(Scratch *s, int32_t ordinal, float impact, Py_ssize_t *candidates) {
    if (s->cells[ordinal].pooled_sum == 0.0f) s->candidates[(*candidates)++] = ordinal;
    s->cells[ordinal].pooled_sum += impact;
}

/* Keep a word's impact on an item if it is the best so far; return the number of reached items. */
static inline Py_ssize_t keep_impact(Scratch *s, int32_t ordinal, float impact, Py_ssize_t reached) {
    Cell *cell = s->cells + ordinal;
    if (impact > cell->pooled) {
        if (cell->pooled == 0.0f) s->reached[reached++] = ordinal;
        cell->pooled = impact;
    }
    return reached;
}

/* Add a word's impacts to the sums of the items that contain it and, weaker with each step, of their neighbors. */
static void spread_impacts(const Items *items, const ScoreOptions *o, Scratch *s, Py_ssize_t found,
                           Py_ssize_t *candidates) {
    Py_ssize_t reached = 0;
    for (Py_ssize_t i = 0; i < found; i++) {
        int32_t ordinal = s->touched[i];
        float impact = s->cells[ordinal].best;
        if (!o->has_neighbors) { /* without neighbors nothing else can be reached */
            s->cells[ordinal].best = 0.0f;
            add_pooled(s, ordinal, impact, candidates);
            continue;
        }
        reached = keep_impact(s, ordinal, impact, reached);
        for (int direction = 0; direction < 2; direction++) {
            int32_t neighbor = ordinal;
            for (int step = 0; step < o->steps; step++) {
                const Item *item = item_at(items, neighbor);
                neighbor = direction ? item->following : item->previous;
                if (!is_item(items, neighbor)) break;
                reached = keep_impact(s, neighbor, impact * o->decays[step], reached);
            }
        }
    }
    for (Py_ssize_t i = 0; i < reached; i++) {
        Cell *cell = s->cells + s->reached[i];
        add_pooled(s, s->reached[i], cell->pooled, candidates);
        cell->pooled = cell->best = 0.0f; /* every touched item was also reached */
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

/* Score all candidates, keep the best in a heap whose root is the worst of them, and clear their cells. */
static Py_ssize_t select_best(const Items *items, const ScoreOptions *o, Scratch *s, Py_ssize_t candidates,
                              Candidate *heap, Py_ssize_t limit, float *pooled, float *bonus) {
    Py_ssize_t kept = 0;
    int reads_items = o->has_removed || o->speaker >= 0 || o->only_group >= 0 || o->exclude_group >= 0;
    for (Py_ssize_t i = 0; i < candidates; i++) {
        int32_t ordinal = s->candidates[i];
        const Cell *cell = s->cells + ordinal;
        Candidate candidate = {o->pooled_weight * cell->pooled_sum, ordinal};
        candidate.score += cell->bonus;
        if (reads_items) {
            const Item *item = item_at(items, ordinal);
            if (item->group < 0 || (o->only_group >= 0 && item->group != o->only_group) ||
                (o->exclude_group >= 0 && item->group == o->exclude_group))
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
                        const float *bonus_values, Py_ssize_t bonuses, const ScoreOptions *o, Scratch *s,
                        Candidate *heap, Py_ssize_t limit, float *pooled, float *bonus) {
    Py_ssize_t candidates = 0;
    for (Py_ssize_t list = 0; list < lists;) {
        int word = postings[list].word;
        Py_ssize_t found = 0;
        for (; list < lists && postings[list].word == word; list++)
            found = gather_impacts(items, postings + list, o, s, found);
        spread_impacts(items, o, s, found, &candidates);
    }
    for (Py_ssize_t i = 0; i < bonuses; i++) {
        int32_t ordinal = bonus_items[i];
        if (!is_item(items, ordinal) || !(bonus_values[i] > 0.0f)) continue;
        Cell *cell = s->cells + ordinal;
        if (cell->pooled_sum == 0.0f && cell->bonus == 0.0f) s->candidates[candidates++] = ordinal;
        cell->bonus += bonus_values[i];
    }
    return select_best(items, o, s, candidates, heap, limit, pooled, bonus);
}

/* ---- Python ---- */

typedef struct {
    Py_buffer *views;
    Py_ssize_t count, capacity;
} Buffers;

static void release_all(Buffers *buffers) {
    while (buffers->count) PyBuffer_Release(&buffers->views[--buffers->count]);
    PyMem_Free(buffers->views);
}

static Py_buffer *borrow(Buffers *buffers, PyObject *object, int flags) {
    if (buffers->count == buffers->capacity) {
        PyErr_SetString(PyExc_SystemError, "more buffers than expected");
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
        Postings *list = postings + i;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(lists, i), "iOOif", &list->word, &items, &counts, &list->first,
                              &list->weight))
            return -1;
        Py_buffer *item_view = borrow(buffers, items, PyBUF_SIMPLE);
        Py_buffer *count_view = item_view ? borrow(buffers, counts, PyBUF_SIMPLE) : NULL;
        if (!count_view) return -1;
        list->items = item_view->buf;
        list->counts = count_view->buf;
        list->size = item_view->len / (Py_ssize_t)sizeof(int32_t);
        if (count_view->len != list->size || !isfinite(list->weight)) {
            PyErr_SetString(PyExc_ValueError, "the arrays of a posting list do not fit together");
            return -1;
        }
    }
    return 0;
}

static int read_decays(PyObject *decays, ScoreOptions *o) {
    PyObject *fast = PySequence_Fast(decays, "decays must be a sequence");
    if (!fast) return -1;
    o->steps = (int)PySequence_Fast_GET_SIZE(fast);
    if (o->steps > MAX_STEPS) {
        PyErr_SetString(PyExc_ValueError, "too many decays");
        o->steps = 0;
    }
    for (int i = 0; i < o->steps; i++) o->decays[i] = (float)PyFloat_AsDouble(PySequence_Fast_GET_ITEM(fast, i));
    Py_DECREF(fast);
    return PyErr_Occurred() ? -1 : 0;
}

static void split_scratch(Scratch *s, char *memory, Py_ssize_t size) {
    s->cells = (Cell *)memory;
    s->touched = (int32_t *)(memory + size * (Py_ssize_t)sizeof(Cell));
    s->reached = s->touched + size;
    s->candidates = s->reached + size;
}

static PyObject *to_result(const Candidate *heap, Py_ssize_t kept, const float *pooled, const float *bonus) {
    PyObject *items = PyBytes_FromStringAndSize(NULL, kept * 4);
    if (!items) return NULL;
    int32_t *ordinals = (int32_t *)PyBytes_AS_STRING(items);
    for (Py_ssize_t i = 0; i < kept; i++) ordinals[i] = heap[i].item;
    return Py_BuildValue("Ny#y#", items, (const char *)pooled, kept * 4, (const char *)bonus, kept * 4);
}

static PyObject *kernel_score(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *base, *tail, *lists, *bonus_items, *bonus_values, *scratch_cells, *decays;
    ScoreOptions o;
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(args, "OOOO!OOO(fff)(ffi)(iipp)n", &base, &tail, &scratch_cells, &PyList_Type, &lists,
                          &bonus_items, &bonus_values, &decays, &o.k1, &o.b, &o.average, &o.pooled_weight,
                          &o.speaker_weight, &o.speaker, &o.only_group, &o.exclude_group, &o.has_neighbors,
                          &o.has_removed, &limit))
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
    Py_buffer *item_view = cells ? borrow(&buffers, bonus_items, PyBUF_SIMPLE) : NULL;
    Py_buffer *value_view = item_view ? borrow(&buffers, bonus_values, PyBUF_SIMPLE) : NULL;
    if (!value_view || read_postings(lists, postings, &buffers)) goto done;
    Items items = {base_view->buf, tail_view->buf, base_view->len / (Py_ssize_t)sizeof(Item), 0};
    items.size = items.base_size + tail_view->len / (Py_ssize_t)sizeof(Item);
    Py_ssize_t capacity = cells->len / SCRATCH_BYTES;
    if (capacity < items.size || item_view->len != value_view->len || limit < 0) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not fit together");
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
    split_scratch(&scratch, cells->buf, capacity);
    Py_ssize_t kept;
    Py_BEGIN_ALLOW_THREADS
    kept = score(&items, postings, size, item_view->buf, value_view->buf, item_view->len / 4, &o, &scratch, heap,
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

/* ---- ranking ---- */

#define MAX_CUES 8

/* The weights and values that rank the candidates. */
typedef struct {
    float pooled_weight, meaning_weight, speaker_weight;
    int32_t speaker;
    int cues;
    uint32_t masks[MAX_CUES];
    float cue_weights[MAX_CUES];
    const float *question;
    Py_ssize_t dimensions;
} RankOptions;

/* The dot product, in eight partial sums that the processor adds in parallel. */
static float product(const int8_t *vector, const float *question, Py_ssize_t dimensions) {
    float rows[8] = {0};
    Py_ssize_t i = 0;
    for (; i + 8 <= dimensions; i += 8)
        for (int row = 0; row < 8; row++) rows[row] += (float)vector[i + row] * question[i + row];
    for (; i < dimensions; i++) rows[0] += (float)vector[i] * question[i];
    return ((rows[0] + rows[1]) + (rows[2] + rows[3])) + ((rows[4] + rows[5]) + (rows[6] + rows[7]));
}

static float rank_score(const Item *item, const int8_t *vector, float pooled, float bonus, const RankOptions *o) {
    float score = o->pooled_weight * pooled + bonus;
    if (vector) {
        float cosine = product(vector, o->question, o->dimensions) * item->scale;
        if (isfinite(cosine)) score += o->meaning_weight * cosine;
    }
    for (int i = 0; i < o->cues; i++)
        if (item->cues & o->masks[i]) score += o->cue_weights[i];
    if (o->speaker >= 0 && item->speaker == o->speaker) score += o->speaker_weight;
    return score;
}

static int by_rank(const void *a, const void *b) { return is_worse(a, b) ? 1 : is_worse(b, a) ? -1 : 0; }

static int read_cues(PyObject *cues, RankOptions *o) {
    PyObject *fast = PySequence_Fast(cues, "cue weights must be a sequence");
    if (!fast) return -1;
    o->cues = 0;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast) && i < MAX_CUES; i++) {
        if (!PyArg_ParseTuple(PySequence_Fast_GET_ITEM(fast, i), "If", o->masks + i, o->cue_weights + i)) break;
        o->cues++;
    }
    Py_DECREF(fast);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *kernel_rank(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *objects[8], *cues;
    RankOptions o;
    if (!PyArg_ParseTuple(args, "OOOOOOOO(fffi)O", objects, objects + 1, objects + 2, objects + 3, objects + 4,
                          objects + 5, objects + 6, objects + 7, &o.pooled_weight, &o.meaning_weight,
                          &o.speaker_weight, &o.speaker, &cues))
        return NULL;
    if (read_cues(cues, &o)) return NULL;
    PyObject *result = NULL;
    Candidate *ranked = NULL;
    Py_buffer views[8];
    int held = 0;
    for (; held < 8; held++)
        if (PyObject_GetBuffer(objects[held], views + held, PyBUF_SIMPLE)) goto done;
    /* base and tail of the items, base and tail of the vectors; ordinals, pooled and bonus of the candidates; the
     * vector of the question */
    Items items = {views[0].buf, views[1].buf, views[0].len / (Py_ssize_t)sizeof(Item), 0};
    items.size = items.base_size + views[1].len / (Py_ssize_t)sizeof(Item);
    Py_ssize_t size = views[4].len / 4;
    o.question = views[7].buf;
    o.dimensions = views[7].len / 4;
    int sums_fit = views[5].len == size * 4 && views[6].len == size * 4;
    if (!sums_fit || views[2].len != items.base_size * o.dimensions ||
        views[3].len != (items.size - items.base_size) * o.dimensions) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not fit together");
        goto done;
    }
    if (!(ranked = PyMem_Malloc((size ? size : 1) * sizeof(Candidate)))) {
        PyErr_NoMemory();
        goto done;
    }
    const int32_t *ordinals = views[4].buf;
    const float *pooled = views[5].buf, *bonus = views[6].buf;
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        int32_t ordinal = ordinals[i];
        if (!is_item(&items, ordinal)) continue;
        const int8_t *vector = ordinal < items.base_size
                                   ? (const int8_t *)views[2].buf + ordinal * o.dimensions
                                   : (const int8_t *)views[3].buf + (ordinal - items.base_size) * o.dimensions;
        ranked[kept].item = ordinal;
        ranked[kept++].score = rank_score(item_at(&items, ordinal), o.dimensions ? vector : NULL, pooled[i], bonus[i],
                                       &o);
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
    {"rank", kernel_rank, METH_VARARGS, "Rank candidates by all features; see memoair_index.kernel."},
    {"score", kernel_score, METH_VARARGS, "Compute the best items for weighted postings; see memoair_index.kernel."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_compiled", .m_doc = "The scoring kernel.", .m_size = 0, .m_methods = methods};

PyMODINIT_FUNC PyInit__compiled(void) { return PyModule_Create(&definition); }

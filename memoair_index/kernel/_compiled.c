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
    float bound; /* of the impact on any item; for pruning */
} Postings;

/* The items that bear one label. */
typedef struct {
    const int32_t *items;
    Py_ssize_t size;
    int32_t first;
    float value;
} Label;

/* The sums of one item, side by side, so that they share a cache line; zero between two calls. */
typedef struct {
    float best, pooled, pooled_sum, talk_sum, bonus;
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
    float pooled_weight, talk_weight, speaker_weight;
    int first_talk_word; /* this word and those after it are of the talk, those before it of the question */
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

/* What the impact of a word depends on besides its postings, computed once for a list. */
typedef struct {
    float factor, shortest, longer;
} Bm25;

static inline Bm25 bm25_of(const ScoreOptions *o) {
    Bm25 bm25 = {o->k1 + 1.0f, o->k1 * (1.0f - o->b), o->k1 * o->b / o->average};
    return bm25;
}

static inline float impact_of(const Items *items, const Postings *list, Bm25 bm25, Py_ssize_t at, int64_t ordinal) {
    float count = (float)list->counts[at];
    float norm = bm25.shortest + bm25.longer * (float)item_at(items, ordinal)->length;
    return list->weight * ((bm25.factor * count) / (count + norm));
}

/* Raise the best impact of a word on each item that contains one of its terms; return the number of items so far. */
static Py_ssize_t gather_impacts(const Items *items, const Postings *postings, const ScoreOptions *o, Scratch *s,
                                 Py_ssize_t found) {
    const Bm25 bm25 = bm25_of(o);
    for (Py_ssize_t i = 0; i < postings->size; i++) {
        int64_t ordinal = (int64_t)postings->items[i] + postings->first;
        if (!is_item(items, ordinal)) continue;
        float impact = impact_of(items, postings, bm25, i, ordinal);
        Cell *cell = s->cells + ordinal;
        if (impact > cell->best) {
            if (cell->best == 0.0f) s->touched[found++] = (int32_t)ordinal;
            cell->best = impact;
        }
    }
    return found;
}

static inline int is_candidate(const Cell *cell) {
    return cell->pooled_sum != 0.0f || cell->talk_sum != 0.0f || cell->bonus != 0.0f;
}

/* Add a word's pooled impact on an item to the item's sum. */
static inline void add_pooled(Scratch *s, int32_t ordinal, float impact, int is_talk, Py_ssize_t *candidates) {
    Cell *cell = s->cells + ordinal;
    if (!is_candidate(cell)) s->candidates[(*candidates)++] = ordinal;
    if (is_talk)
        cell->talk_sum += impact;
    else
        cell->pooled_sum += impact;
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
static void spread_impacts(const Items *items, const ScoreOptions *o, Scratch *s, Py_ssize_t found, int is_talk,
                           Py_ssize_t *candidates) {
    Py_ssize_t reached = 0;
    for (Py_ssize_t i = 0; i < found; i++) {
        int32_t ordinal = s->touched[i];
        float impact = s->cells[ordinal].best;
        if (!o->has_neighbors) { /* without neighbors nothing else can be reached */
            s->cells[ordinal].best = 0.0f;
            add_pooled(s, ordinal, impact, is_talk, candidates);
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
        add_pooled(s, s->reached[i], cell->pooled, is_talk, candidates);
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

/* Compute the score of a candidate from its sums so far; return whether it may be kept at all. */
static inline int score_candidate(const Items *items, const ScoreOptions *o, const Scratch *s, Candidate *candidate) {
    const Cell *cell = s->cells + candidate->item;
    candidate->score = o->pooled_weight * cell->pooled_sum;
    candidate->score += o->talk_weight * cell->talk_sum;
    candidate->score += cell->bonus;
    if (o->has_removed || o->speaker >= 0 || o->only_group >= 0 || o->exclude_group >= 0) {
        const Item *item = item_at(items, candidate->item);
        if (item->group < 0 || (o->only_group >= 0 && item->group != o->only_group) ||
            (o->exclude_group >= 0 && item->group == o->exclude_group))
            return 0;
        if (o->speaker >= 0 && item->speaker == o->speaker) candidate->score += o->speaker_weight;
    }
    return 1;
}

/* Keep the best of some items in a heap whose root is the worst of them; return how many it holds. */
static Py_ssize_t keep_best(const Items *items, const ScoreOptions *o, const Scratch *s, const int32_t *ordinals,
                            Py_ssize_t size, Candidate *heap, Py_ssize_t limit) {
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        Candidate candidate = {0.0f, ordinals[i]};
        if (!score_candidate(items, o, s, &candidate)) continue;
        if (kept < limit) {
            heap[kept] = candidate;
            sift_up(heap, kept++);
        } else if (limit && is_worse(heap, &candidate)) {
            heap[0] = candidate;
            sift_down(heap, kept, 0);
        }
    }
    return kept;
}

/* ---- pruning ----
 *
 * The longest lists are those of frequent words, which add little to a score. They are left out at first. What they could
 * add is bounded: an item that no other list has found can no longer be among the best if the bound is below the worst of
 * the best items, and of those that were found only a few can. For these few every word is looked up, in the order of the
 * words. The result is the same, and so is each sum. If the bounds are too large for that, more lists are read. */

/* Below this, to look at all postings takes less time than to find out whether it is necessary. */
#define MIN_PRUNED_POSTINGS 8192
/* The longest lists that are read in the first attempt, and how many times as long they are in the next if that has not
 * found enough items. */
#define FIRST_LIST_LIMIT 2048
#define LIST_LIMIT_GROWTH 8
/* If more than this share of the postings must be read for an attempt, all of them are. */
#define MAX_PRUNED_SHARE 0.25f
/* Sums of floats are off by some units in the last place; bounds are raised by more than that. */
#define BOUND_MARGIN 1.0001f

/* Return an upper bound of a list's impact on any item. */
static float impact_bound(const Postings *list, const ScoreOptions *o) {
    uint8_t count = 0;
    for (Py_ssize_t i = 0; i < list->size; i++) count = list->counts[i] > count ? list->counts[i] : count;
    float shortest = o->k1 * (1.0f - o->b);
    float bound = list->weight * (((o->k1 + 1.0f) * (float)count) / ((float)count + shortest));
    return bound > 0.0f ? bound : 0.0f;
}

/* Return an upper bound of what the lists that are longer than a limit can add to a score. */
static float bound_of_longer(const Postings *postings, Py_ssize_t lists, const ScoreOptions *o, Py_ssize_t list_limit) {
    float sum = 0.0f;
    for (Py_ssize_t list = 0; list < lists;) {
        int word = postings[list].word;
        float bound = 0.0f;
        for (; list < lists && postings[list].word == word; list++)
            if (postings[list].size > list_limit && postings[list].bound > bound) bound = postings[list].bound;
        sum += (word >= o->first_talk_word ? o->talk_weight : o->pooled_weight) * bound;
    }
    return sum * BOUND_MARGIN;
}

/* Return the least length of a list, if there is one, so that what longer ones can add is below half of a score; else -1.
 * With the whole score, nearly all items that were found could still be among the best. */
static Py_ssize_t next_limit(const Postings *postings, Py_ssize_t lists, const ScoreOptions *o, float bonus, float score) {
    Py_ssize_t best = -1;
    for (Py_ssize_t list = 0; list < lists; list++) {
        Py_ssize_t size = postings[list].size;
        if (size > FIRST_LIST_LIMIT && (best < 0 || size < best) &&
            (bound_of_longer(postings, lists, o, size) + bonus) * BOUND_MARGIN < 0.5f * score)
            best = size;
    }
    return best;
}

/* Return how many postings are in the lists up to a limit. */
static Py_ssize_t count_postings(const Postings *postings, Py_ssize_t lists, Py_ssize_t list_limit) {
    Py_ssize_t total = 0;
    for (Py_ssize_t list = 0; list < lists; list++) total += postings[list].size <= list_limit ? postings[list].size : 0;
    return total;
}

/* Return the position of the first ordinal of a sorted list that is not less than a value, at or after a position. */
static Py_ssize_t find_from(const Postings *list, Py_ssize_t from, int64_t ordinal) {
    Py_ssize_t step = 1, low = from, high = from;
    while (high < list->size && list->items[high] < ordinal) { /* in growing steps, since the values grow, too */
        low = high + 1;
        high += step;
        step *= 2;
    }
    if (high > list->size) high = list->size;
    while (low < high) {
        Py_ssize_t middle = low + (high - low) / 2;
        if (list->items[middle] < ordinal)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Raise the best impact of a word on each of some sorted items, which are marked by `pooled`. */
static void look_up(const Items *items, const Postings *list, const ScoreOptions *o, Scratch *s, Py_ssize_t wanted) {
    const Bm25 bm25 = bm25_of(o);
    if (list->size < 8 * wanted) {
        for (Py_ssize_t i = 0; i < list->size; i++) {
            int64_t ordinal = (int64_t)list->items[i] + list->first;
            if (!is_item(items, ordinal) || s->cells[ordinal].pooled == 0.0f) continue;
            float impact = impact_of(items, list, bm25, i, ordinal);
            if (impact > s->cells[ordinal].best) s->cells[ordinal].best = impact;
        }
        return;
    }
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < wanted && at < list->size; i++) {
        int64_t ordinal = s->reached[i];
        at = find_from(list, at, ordinal - list->first);
        if (at == list->size || list->items[at] != ordinal - list->first) continue;
        float impact = impact_of(items, list, bm25, at, ordinal);
        if (impact > s->cells[ordinal].best) s->cells[ordinal].best = impact;
    }
}

static int by_ordinal(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* List the given items and all from which an impact reaches them, sorted and marked; return how many. */
static Py_ssize_t collect_wanted(const Items *items, const ScoreOptions *o, Scratch *s, const int32_t *survivors,
                                 Py_ssize_t size) {
    Py_ssize_t wanted = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        for (int direction = 0; direction < 2; direction++) {
            int32_t ordinal = survivors[i];
            for (int step = 0; is_item(items, ordinal); step++) {
                Cell *cell = s->cells + ordinal;
                if (cell->pooled == 0.0f) {
                    cell->pooled = 1.0f;
                    s->reached[wanted++] = ordinal;
                }
                if (!o->has_neighbors || step == o->steps) break;
                const Item *item = item_at(items, ordinal);
                ordinal = direction ? item->following : item->previous;
            }
        }
    }
    qsort(s->reached, wanted, sizeof(int32_t), by_ordinal);
    return wanted;
}

/* Return the best impact that reaches an item: on itself or, weaker with each step, on a neighbor. */
static float reaching_impact(const Items *items, const ScoreOptions *o, const Scratch *s, int32_t ordinal) {
    float best = s->cells[ordinal].best;
    for (int direction = 0; o->has_neighbors && direction < 2; direction++) {
        int32_t neighbor = ordinal;
        for (int step = 0; step < o->steps; step++) {
            const Item *item = item_at(items, neighbor);
            neighbor = direction ? item->following : item->previous;
            if (!is_item(items, neighbor)) break;
            float impact = s->cells[neighbor].best * o->decays[step];
            if (impact > best) best = impact;
        }
    }
    return best;
}

/* Replace the sums of some items by those of all words. */
static void complete_sums(const Items *items, const Postings *postings, Py_ssize_t lists, const ScoreOptions *o, Scratch *s,
                          const int32_t *chosen, Py_ssize_t size) {
    Py_ssize_t wanted = collect_wanted(items, o, s, chosen, size);
    for (Py_ssize_t i = 0; i < size; i++) s->cells[chosen[i]].pooled_sum = s->cells[chosen[i]].talk_sum = 0.0f;
    for (Py_ssize_t list = 0; list < lists;) {
        int word = postings[list].word;
        for (; list < lists && postings[list].word == word; list++) look_up(items, postings + list, o, s, wanted);
        for (Py_ssize_t i = 0; i < size; i++) {
            float impact = reaching_impact(items, o, s, chosen[i]);
            if (!(impact > 0.0f)) continue;
            if (word >= o->first_talk_word)
                s->cells[chosen[i]].talk_sum += impact;
            else
                s->cells[chosen[i]].pooled_sum += impact;
        }
        for (Py_ssize_t i = 0; i < wanted; i++) s->cells[s->reached[i]].best = 0.0f;
    }
    for (Py_ssize_t i = 0; i < wanted; i++) s->cells[s->reached[i]].pooled = 0.0f;
}

static void add_labels(const Items *items, const Label *labels, Py_ssize_t count, Scratch *s, Py_ssize_t *candidates) {
    for (Py_ssize_t i = 0; i < count; i++) {
        for (Py_ssize_t k = 0; k < labels[i].size; k++) {
            int64_t ordinal = (int64_t)labels[i].items[k] + labels[i].first;
            if (!is_item(items, ordinal) || !(labels[i].value > s->cells[ordinal].bonus)) continue;
            if (!is_candidate(s->cells + ordinal)) s->candidates[(*candidates)++] = (int32_t)ordinal;
            s->cells[ordinal].bonus = labels[i].value;
        }
    }
}

/* Add the words' impacts to the sums of all items, without the lists that are longer than a limit. */
static void add_words(const Items *items, const Postings *postings, Py_ssize_t lists, const ScoreOptions *o, Scratch *s,
                      Py_ssize_t list_limit, Py_ssize_t *candidates) {
    for (Py_ssize_t list = 0; list < lists;) {
        int word = postings[list].word;
        Py_ssize_t found = 0;
        for (; list < lists && postings[list].word == word; list++)
            if (postings[list].size <= list_limit) found = gather_impacts(items, postings + list, o, s, found);
        spread_impacts(items, o, s, found, word >= o->first_talk_word, candidates);
    }
}

static void clear_sums(Scratch *s, Py_ssize_t candidates) {
    for (Py_ssize_t i = 0; i < candidates; i++) {
        Cell *cell = s->cells + s->candidates[i];
        cell->pooled_sum = cell->talk_sum = 0.0f;
    }
}

/* Replace the sums of all items that can be among the best by those of all words; return how many of the best there are.
 * The heap holds the best so far, and all items that may be better are candidates. */
static Py_ssize_t complete_best(const Items *items, const Postings *postings, Py_ssize_t lists, const ScoreOptions *o,
                                Scratch *s, Py_ssize_t candidates, Candidate *heap, Py_ssize_t limit, float bound) {
    /* First the best so far: with the sums of all words, the worst of them rules out most of the others. */
    int32_t *chosen = s->touched; /* only used while a word is gathered */
    for (Py_ssize_t i = 0; i < limit; i++) chosen[i] = heap[i].item;
    complete_sums(items, postings, lists, o, s, chosen, limit);
    float worst = INFINITY;
    for (Py_ssize_t i = 0; i < limit; i++) {
        score_candidate(items, o, s, heap + i);
        worst = heap[i].score < worst ? heap[i].score : worst;
        s->cells[heap[i].item].best = 1.0f; /* marks it as chosen */
    }
    Py_ssize_t size = limit;
    for (Py_ssize_t i = 0; i < candidates; i++) {
        Candidate candidate = {0.0f, s->candidates[i]};
        if (s->cells[candidate.item].best == 0.0f && score_candidate(items, o, s, &candidate) &&
            (candidate.score + bound) * BOUND_MARGIN >= worst)
            chosen[size++] = candidate.item;
    }
    for (Py_ssize_t i = 0; i < limit; i++) s->cells[chosen[i]].best = 0.0f;
    complete_sums(items, postings, lists, o, s, chosen + limit, size - limit);
    return keep_best(items, o, s, chosen, size, heap, limit);
}

/* Find the best items without reading all postings; return how many, or -1 if that is not possible. The items with a
 * bonus are candidates already. */
static Py_ssize_t score_pruned(const Items *items, Postings *postings, Py_ssize_t lists, const ScoreOptions *o,
                               Scratch *s, Py_ssize_t *candidates, Candidate *heap, Py_ssize_t limit) {
    Py_ssize_t total = count_postings(postings, lists, PY_SSIZE_T_MAX), with_bonus = *candidates;
    if (total < MIN_PRUNED_POSTINGS || !limit) return -1;
    for (Py_ssize_t list = 0; list < lists; list++)
        postings[list].bound = postings[list].size > FIRST_LIST_LIMIT ? impact_bound(postings + list, o) : 0.0f;
    float bonus = o->speaker >= 0 && o->speaker_weight > 0.0f ? o->speaker_weight : 0.0f;
    Py_ssize_t list_limit = FIRST_LIST_LIMIT;
    while (count_postings(postings, lists, list_limit) <= MAX_PRUNED_SHARE * (float)total) {
        float bound = bound_of_longer(postings, lists, o, list_limit);
        add_words(items, postings, lists, o, s, list_limit, candidates);
        Py_ssize_t kept = keep_best(items, o, s, s->candidates, *candidates, heap, limit);
        if (kept == limit && (bound + bonus) * BOUND_MARGIN < heap->score)
            return complete_best(items, postings, lists, o, s, *candidates, heap, limit, bound);
        /* The scores only grow with the number of lists, so that the next limit is enough. */
        list_limit = kept == limit ? next_limit(postings, lists, o, bonus, heap->score) : list_limit * LIST_LIMIT_GROWTH;
        clear_sums(s, *candidates);
        *candidates = with_bonus;
        if (list_limit < 0) break;
    }
    return -1;
}

static Py_ssize_t score(const Items *items, Postings *postings, Py_ssize_t lists, const Label *labels,
                        Py_ssize_t label_count, const int32_t *bonus_items, const float *bonus_values,
                        Py_ssize_t bonuses, const ScoreOptions *o, Scratch *s, Candidate *heap, Py_ssize_t limit,
                        float *sums) {
    Py_ssize_t candidates = 0;
    add_labels(items, labels, label_count, s, &candidates);
    for (Py_ssize_t i = 0; i < bonuses; i++) {
        int32_t ordinal = bonus_items[i];
        if (!is_item(items, ordinal) || !(bonus_values[i] > 0.0f)) continue;
        if (!is_candidate(s->cells + ordinal)) s->candidates[candidates++] = ordinal;
        s->cells[ordinal].bonus += bonus_values[i];
    }
    Py_ssize_t kept = score_pruned(items, postings, lists, o, s, &candidates, heap, limit);
    if (kept < 0) {
        add_words(items, postings, lists, o, s, PY_SSIZE_T_MAX, &candidates);
        kept = keep_best(items, o, s, s->candidates, candidates, heap, limit);
    }
    for (Py_ssize_t i = 0; i < kept; i++) {
        const Cell *cell = s->cells + heap[i].item;
        sums[i] = cell->pooled_sum;
        sums[limit + i] = cell->talk_sum;
        sums[2 * limit + i] = cell->bonus;
    }
    clear_sums(s, candidates);
    for (Py_ssize_t i = 0; i < candidates; i++) s->cells[s->candidates[i]].bonus = 0.0f;
    return kept;
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

static int read_labels(PyObject *lists, Label *labels, Buffers *buffers) {
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(lists); i++) {
        PyObject *items;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(lists, i), "Oif", &items, &labels[i].first, &labels[i].value)) return -1;
        Py_buffer *view = borrow(buffers, items, PyBUF_SIMPLE);
        if (!view) return -1;
        labels[i].items = view->buf;
        labels[i].size = view->len / (Py_ssize_t)sizeof(int32_t);
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

static PyObject *to_result(const Candidate *heap, Py_ssize_t kept, const float *sums, Py_ssize_t limit) {
    PyObject *items = PyBytes_FromStringAndSize(NULL, kept * 4);
    if (!items) return NULL;
    int32_t *ordinals = (int32_t *)PyBytes_AS_STRING(items);
    for (Py_ssize_t i = 0; i < kept; i++) ordinals[i] = heap[i].item;
    return Py_BuildValue("Ny#y#y#", items, (const char *)sums, kept * 4, (const char *)(sums + limit), kept * 4,
                         (const char *)(sums + 2 * limit), kept * 4);
}

static PyObject *kernel_score(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *base, *tail, *lists, *label_lists, *bonus_items, *bonus_values, *scratch_cells, *decays;
    ScoreOptions o;
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(args, "OOOO!O!OOO(fff)(fffii)(iipp)n", &base, &tail, &scratch_cells, &PyList_Type, &lists,
                          &PyList_Type, &label_lists, &bonus_items, &bonus_values, &decays, &o.k1, &o.b, &o.average,
                          &o.pooled_weight, &o.talk_weight, &o.speaker_weight, &o.speaker, &o.first_talk_word,
                          &o.only_group, &o.exclude_group, &o.has_neighbors, &o.has_removed, &limit))
        return NULL;
    if (read_decays(decays, &o)) return NULL;
    PyObject *result = NULL;
    Py_ssize_t size = PyList_GET_SIZE(lists), label_count = PyList_GET_SIZE(label_lists);
    Candidate *heap = NULL;
    float *sums = NULL;
    Postings *postings = PyMem_Malloc((size + 1) * sizeof(Postings));
    Label *labels = PyMem_Malloc((label_count + 1) * sizeof(Label));
    Py_ssize_t capacity_views = 2 * size + label_count + 5;
    Buffers buffers = {PyMem_Malloc(capacity_views * sizeof(Py_buffer)), 0, capacity_views};
    if (!postings || !labels || !buffers.views) {
        PyErr_NoMemory();
        goto done;
    }
    Py_buffer *base_view = borrow(&buffers, base, PyBUF_SIMPLE);
    Py_buffer *tail_view = base_view ? borrow(&buffers, tail, PyBUF_SIMPLE) : NULL;
    Py_buffer *cells = tail_view ? borrow(&buffers, scratch_cells, PyBUF_WRITABLE) : NULL;
    Py_buffer *item_view = cells ? borrow(&buffers, bonus_items, PyBUF_SIMPLE) : NULL;
    Py_buffer *value_view = item_view ? borrow(&buffers, bonus_values, PyBUF_SIMPLE) : NULL;
    if (!value_view || read_postings(lists, postings, &buffers) || read_labels(label_lists, labels, &buffers))
        goto done;
    Items items = {base_view->buf, tail_view->buf, base_view->len / (Py_ssize_t)sizeof(Item), 0};
    items.size = items.base_size + tail_view->len / (Py_ssize_t)sizeof(Item);
    Py_ssize_t capacity = cells->len / SCRATCH_BYTES;
    if (capacity < items.size || item_view->len != value_view->len || limit < 0) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not fit together");
        goto done;
    }
    if (limit > items.size) limit = items.size;
    heap = PyMem_Malloc((limit ? limit : 1) * sizeof(Candidate));
    sums = PyMem_Malloc((limit ? limit : 1) * 3 * sizeof(float));
    if (!heap || !sums) {
        PyErr_NoMemory();
        goto done;
    }
    Scratch scratch;
    split_scratch(&scratch, cells->buf, capacity);
    Py_ssize_t kept;
    Py_BEGIN_ALLOW_THREADS
    kept = score(&items, postings, size, labels, label_count, item_view->buf, value_view->buf,
                 item_view->len / 4, &o, &scratch, heap, limit, sums);
    Py_END_ALLOW_THREADS
    result = to_result(heap, kept, sums, limit);
done:
    release_all(&buffers);
    PyMem_Free(postings);
    PyMem_Free(labels);
    PyMem_Free(heap);
    PyMem_Free(sums);
    return result;
}

/* ---- ranking ---- */

#define MAX_CUES 8

/* The weights and values that rank the candidates. */
typedef struct {
    float pooled_weight, talk_weight, meaning_weight, speaker_weight;
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

static float rank_score(const Item *item, const int8_t *vector, float pooled, float talk, float bonus,
                        const RankOptions *o, float *cosine) {
    float score = o->pooled_weight * pooled;
    score += o->talk_weight * talk;
    score += bonus;
    *cosine = 0.0f;
    if (vector) {
        float product_of_vectors = product(vector, o->question, o->dimensions) * item->scale;
        if (isfinite(product_of_vectors)) *cosine = product_of_vectors;
        score += o->meaning_weight * *cosine;
    }
    for (int i = 0; i < o->cues; i++)
        if (item->cues & o->masks[i]) score += o->cue_weights[i];
    if (o->speaker >= 0 && item->speaker == o->speaker) score += o->speaker_weight;
    return score;
}

/* A candidate with what its score is made of. */
typedef struct {
    Candidate candidate;
    float pooled, cosine;
} Ranked;

static int by_rank(const void *a, const void *b) {
    const Candidate *x = &((const Ranked *)a)->candidate, *y = &((const Ranked *)b)->candidate;
    return is_worse(x, y) ? 1 : is_worse(y, x) ? -1 : 0;
}

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
    PyObject *objects[9], *cues;
    RankOptions o;
    if (!PyArg_ParseTuple(args, "OOOOOOOOO(ffffi)O", objects, objects + 1, objects + 2, objects + 3, objects + 4,
                          objects + 5, objects + 6, objects + 7, objects + 8, &o.pooled_weight, &o.talk_weight,
                          &o.meaning_weight, &o.speaker_weight, &o.speaker, &cues))
        return NULL;
    if (read_cues(cues, &o)) return NULL;
    PyObject *result = NULL;
    Ranked *ranked = NULL;
    Py_buffer views[9];
    int held = 0;
    for (; held < 9; held++)
        if (PyObject_GetBuffer(objects[held], views + held, PyBUF_SIMPLE)) goto done;
    /* base and tail of the items, base and tail of the vectors; ordinals, pooled, talk and bonus of the candidates;
     * the vector of the question */
    Items items = {views[0].buf, views[1].buf, views[0].len / (Py_ssize_t)sizeof(Item), 0};
    items.size = items.base_size + views[1].len / (Py_ssize_t)sizeof(Item);
    Py_ssize_t size = views[4].len / 4;
    o.question = views[8].buf;
    o.dimensions = views[8].len / 4;
    int sums_fit = views[5].len == size * 4 && views[6].len == size * 4 && views[7].len == size * 4;
    if (!sums_fit || views[2].len != items.base_size * o.dimensions ||
        views[3].len != (items.size - items.base_size) * o.dimensions) {
        PyErr_SetString(PyExc_ValueError, "the buffers do not fit together");
        goto done;
    }
    if (!(ranked = PyMem_Malloc((size ? size : 1) * sizeof(Ranked)))) {
        PyErr_NoMemory();
        goto done;
    }
    const int32_t *ordinals = views[4].buf;
    const float *pooled = views[5].buf, *talk = views[6].buf, *bonus = views[7].buf;
    Py_ssize_t kept = 0;
    for (Py_ssize_t i = 0; i < size; i++) {
        int32_t ordinal = ordinals[i];
        if (!is_item(&items, ordinal)) continue;
        const int8_t *vector = ordinal < items.base_size
                                   ? (const int8_t *)views[2].buf + ordinal * o.dimensions
                                   : (const int8_t *)views[3].buf + (ordinal - items.base_size) * o.dimensions;
        Ranked *entry = ranked + kept++;
        entry->candidate.item = ordinal;
        entry->pooled = pooled[i];
        entry->candidate.score = rank_score(item_at(&items, ordinal), o.dimensions ? vector : NULL, pooled[i], talk[i],
                                            bonus[i], &o, &entry->cosine);
    }
    qsort(ranked, kept, sizeof(Ranked), by_rank);
    result = PyList_New(kept);
    for (Py_ssize_t i = 0; result && i < kept; i++) {
        PyObject *pair = Py_BuildValue("(iddd)", ranked[i].candidate.item, (double)ranked[i].candidate.score,
                                       (double)ranked[i].pooled, (double)ranked[i].cosine);
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

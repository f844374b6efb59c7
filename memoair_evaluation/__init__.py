"""Evaluate recall: cases, what a candidate recalls for them, scores, comparisons. Knows neither database nor HTTP."""

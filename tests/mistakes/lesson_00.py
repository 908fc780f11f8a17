"""Wrong answers to the exercises of lesson 00, each with words of the message that it must get."""


def function(signature: str, *lines: str) -> str:
    return f"def {signature}:\n" + "".join(f"    {line}\n" for line in lines)


UNIT = "i, t = F.normalize(image_features, dim=1), F.normalize(text_features, dim=1)"

MISTAKES = {
    "best_match": [
        (function("my_best_match(similarities)", f"return {body}"), words)
        for body, words in [
            ("similarities.max()", "the similarity itself"),
            ("similarities.argmin()", "place of the smallest"),
            ("similarities.abs().argmax()", "absolute value"),
            ("similarities.argmax() + 1", "counts from 1"),
            ("1", "one number is"),
            ("similarities.max(dim=0)", "the value and its place"),
            ("similarities.softmax(dim=0)", "shape (4,): return a number"),
        ]
    ],
    "nearest_text": [
        (function("my_nearest_text(image_features, text_features)", *lines), words)
        for lines, words in [
            (("return (image_features @ text_features.T).argmax(dim=1)",), "longest ones win"),
            ((UNIT, "return (i @ t.T).argmax(dim=0)"), "best picture for each text"),
            ((UNIT, "return (i @ t.T).argmin(dim=1)"), "least similar"),
            ((UNIT, "return i @ t.T"), "these are the cosines"),
            ((UNIT, "return (i @ t.T).max(dim=1).values"), "the largest cosines"),
            ((UNIT, "return (i @ t.T).max(dim=1)"), "both: choose"),
            ((UNIT.replace("dim=1", "dim=0"), "return (i @ t.T).argmax(dim=1)"), "over the pictures"),
        ]
    ],
}

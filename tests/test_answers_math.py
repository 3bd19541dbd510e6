r"""Final answers of the kind `math`: how completions of real models end."""

import time

import pytest

from limbeck.answers import extract_answer
from limbeck.config import TaskConfig

TASK = TaskConfig(kind="math")
CASES: list[tuple[str, str, str | None]] = [
    # Boxes.
    ("box", r"So the total is \boxed{42}.", "42"),
    ("box in dollars", r"Therefore, $\boxed{-7}$", "-7"),
    ("box in display maths", "\\[\n\\boxed{128}\n\\]", "128"),
    ("box with a space", r"\boxed {15}", "15"),
    ("box without braces", r"Thus \boxed 5", "5"),
    ("fbox", r"\fbox{12}", "12"),
    ("box of a fraction", r"\boxed{\frac{3}{4}}", "3/4"),
    ("box of a dfrac", r"\boxed{\dfrac{3}{4}}", "3/4"),
    ("box of a tfrac", r"\boxed{\tfrac{1}{2}}", "1/2"),
    ("box of a cfrac", r"\boxed{\cfrac{7}{2}}", "7/2"),
    ("short fraction", r"\boxed{\frac12}", "1/2"),
    ("negative fraction", r"\boxed{-\frac{5}{9}}", "-5/9"),
    ("minus in the numerator", r"\boxed{\frac{-5}{9}}", "-5/9"),
    ("nested braces", r"\boxed{\frac{\sqrt{3}}{2}}", r"\frac{\sqrt{3}}{2}"),
    ("deep braces", r"\boxed{\sqrt{\frac{1}{2^{3}}}}", r"\sqrt{\frac{1}{2^{3}}}"),
    ("two boxes", r"First \boxed{3}, but then \boxed{5}.", "5"),
    ("box in a box", r"\boxed{\boxed{9}}", "9"),
    ("box before hashes", "\\boxed{8}\n#### 9", "8"),
    ("box and a later number", r"\boxed{60} minutes, that is 1 hour", "60"),
    ("box of words", r"\boxed{\text{Monday}}", "monday"),
    ("box of words and spaces", r"\boxed{\text{ no  solution }}", "no solution"),
    ("box with unit", r"\boxed{5\text{ cm}}", "5"),
    ("box with square unit", r"\boxed{36\text{ cm}^2}", "36"),
    ("box with mathrm unit", r"\boxed{9.8\,\mathrm{m/s^2}}", "9.8"),
    ("box with plain unit", r"\boxed{12 \mbox{ inches}}", "12"),
    ("box with degrees", r"\boxed{90^\circ}", "90"),
    ("box with braced degrees", r"\boxed{45^{\circ}}", "45"),
    ("box with percent", r"\boxed{25\%}", "25%"),
    ("box with currency", r"\boxed{\$18.50}", "18.5"),
    ("box with braced comma", r"\boxed{1{,}234}", "1234"),
    ("box with commas", r"\boxed{12,345,678}", "12345678"),
    ("box with thin spaces", r"\boxed{10\,000}", "10000"),
    ("box with forced space", r"\boxed{1\ 000}", "1000"),
    ("box with negative space", r"\boxed{1{,}\!000}", "1000"),
    ("box of a point", r"\boxed{(3, 4)}", "(3,4)"),
    ("box of a point of fractions", r"\boxed{\left( 3, \frac{\pi}{2} \right)}", r"(3,\frac{\pi}{2})"),
    ("box of an interval", r"\boxed{[2, 5)}", "[2,5)"),
    ("box of a union", r"\boxed{(-\infty, -1) \cup (1, \infty)}", r"(-\infty,-1)\cup(1,\infty)"),
    ("box of a list", r"\boxed{2, 3}", "2,3"),
    ("box of a set", r"\boxed{\{1, 2\}}", r"\{1,2\}"),
    ("box of an assignment", r"\boxed{x = 5}", "5"),
    ("box of a function's value", r"\boxed{f(x) = 2x + 1}", "2x+1"),
    ("box of two assignments", r"\boxed{x = 2, y = 3}", "x=2,y=3"),
    ("box of a mixed number", r"\boxed{3\frac{1}{2}}", "7/2"),
    ("box of a negative mixed number", r"\boxed{-2\frac{3}{4}}", "-11/4"),
    ("box of a polynomial", r"\boxed{x^2 + 2x + 1}", "x^2+2x+1"),
    ("box of pi", r"\boxed{16\pi}", r"16\pi"),
    ("box of pi r", r"\boxed{2 \pi r}", r"2\pi r"),
    ("box of pi with unit", r"\boxed{16\pi \text{ cm}^2}", r"16\pi"),
    ("box of a root", r"\boxed{2\sqrt{5}}", r"2\sqrt{5}"),
    ("box of a short root", r"\boxed{\sqrt2}", r"\sqrt{2}"),
    ("box of a variable", r"\boxed{n}", "n"),
    ("box of yes", r"\boxed{\textbf{Yes}}", "yes"),
    ("box of a letter option", r"\boxed{\text{(C)}}", "(C)"),
    ("box of inf", r"\boxed{\infty}", r"\infty"),
    ("box of a decimal without zero", r"\boxed{.5}", "0.5"),
    ("box of a decimal with idle zeros", r"\boxed{2.50}", "2.5"),
    ("box of a matrix", r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("box of a power", r"\boxed{2^{10}}", "2^{10}"),
    ("box with escaped brace", r"\boxed{\{x \mid x > 3\}}", r"\{x\mid x>3\}"),
    # Truncation.
    ("cut in a box", r"So we have \boxed{\frac{3}{4", None),
    ("cut after the brace", r"So we have \boxed{", None),
    ("cut before the brace", r"So we have \boxed", None),
    ("cut in the command", r"So the 5 apples are \box", None),
    ("cut in a second box", r"\boxed{3} is wrong, \boxed{\sqrt{", None),
    ("empty box", r"The 3 apples: \boxed{}", None),
    ("box of a question mark", r"\boxed{?}", None),
    ("cut after is", "3 + 4 = 7, so the answer is", None),
    ("cut after hashes", "3 + 4 = 7\n####", None),
    ("cut after equals", "We have 3 + 4 =", None),
    ("cut after a dollar", "We have 12 apples, so the answer is $", None),
    # Hashes, as in GSM8K.
    ("hashes", "5 * 4 = 20\n#### 20", "20"),
    ("hashes without a space", "####72", "72"),
    ("hashes with commas", "#### 1,072", "1072"),
    ("hashes with currency", "#### $1,450.00", "1450"),
    ("hashes with a unit", "#### 12 apples", "12"),
    ("hashes with a dot", "#### 18.", "18"),
    ("hashes with percent", "#### 30%", "30%"),
    ("hashes twice", "#### 5\nWait, no.\n#### 6", "6"),
    ("hashes in bold", "#### **14**", "14"),
    ("hashes with text after them", "#### 10\n\nLet me know if you have 3 more questions!", "10"),
    ("hashes with minus sign", "#### \u22125", "-5"),
    # "The answer is".
    ("the answer is", "The answer is 42.", "42"),
    ("the final answer is", "The final answer is: $\\frac{7}{8}$.", "7/8"),
    ("I hope it is correct", "Final Answer: The final answer is $12$. I hope it is correct.", "12"),
    ("therefore", "Therefore, the answer is -3.5", "-3.5"),
    ("colon", "Answer: 17", "17"),
    ("bold colon", "**Answer:** 17", "17"),
    ("bold answer", "The answer is **23**.", "23"),
    ("heading", "### Final Answer\n\nThe final answer is $\\boxed{2}$", "2"),
    ("answer on the next line", "Final answer:\n\n42", "42"),
    ("display maths on the next line", "The answer is:\n\\[\n\\frac{1}{3}\n\\]", "1/3"),
    ("double dollars", "The answer is $$x = 4$$", "4"),
    ("parentheses maths", r"The answer is \(2\sqrt{2}\).", r"2\sqrt{2}"),
    ("with unit", "The answer is 5 meters.", "5"),
    ("with unit per unit", "The answer is 60 miles per hour.", "60"),
    ("with a slash unit", "The answer is 60 km/h.", "60"),
    ("with squared unit", "The answer is 24 cm\u00b2.", "24"),
    ("with currency", "The answer is $12", "12"),
    ("with currency and cents", "The answer is $3.20.", "3.2"),
    ("with currency word", "The answer is 15 dollars.", "15"),
    ("with pounds", "The answer is \u00a3250.", "250"),
    ("with euro behind", "The answer is 99 \u20ac.", "99"),
    ("with percent", "The answer is 37.5%.", "37.5%"),
    ("with percent word", "The answer is 40 percent.", "40%"),
    ("maths then percent", "The answer is $40$%.", "40%"),
    ("with thousands", "The answer is 1,234,567.", "1234567"),
    ("with spaced thousands", "The answer is 25 000.", "25000"),
    ("with million", "The answer is 3.2 million people.", "3200000"),
    ("with a mixed number", "The answer is 2 1/2 hours.", "5/2"),
    ("with a vulgar fraction", "The answer is 2\u00bd cups.", "5/2"),
    ("with a fraction", "The answer is 3/8.", "3/8"),
    ("with a ratio", "The answer is 3:4.", "3:4"),
    ("with a reason", "The answer is 12 because 3 * 4 = 12 and 2 is even.", "12"),
    ("with a clause", "The answer is 12, since there are 3 of 4.", "12"),
    ("with x =", "The answer is x = 9.", "9"),
    ("with a sum", "The answer is 3 + 4 = 7.", "7"),
    ("with a subject", "The answer is that Tom has 12 apples left.", "12"),
    ("about", "The answer is approximately 3.14.", "3.14"),
    ("several candidates", "The answer is 12. Wait, I forgot one. The answer is 13.", "13"),
    ("answer to the problem", "So the answer to the problem is 21.", "21"),
    ("two values", "The answers are $2$ and $3$.", "2,3"),
    ("two values with or", "The answer is 2 or 3.", "2,3"),
    ("a check after it", "The answer is 6. Let me check if the answer is correct: yes.", "6"),
    ("yes", "The answer is yes.", "yes"),
    ("no solution", "The answer is no solution.", "no solution"),
    ("in capitals", "THE ANSWER IS 99", "99"),
    ("currency twice", "The answer is $5 and not $7.", "5"),
    ("unicode pi", "The answer is 9\u03c0.", r"9\pi"),
    ("unicode root", "The answer is \u221a2.", r"\sqrt{2}"),
    ("scientific", "The answer is 1.5e3", r"1.5\times10^{3}"),
    ("times ten to", r"The answer is $3 \times 10^8$ m/s.", r"3\times10^8"),
    ("plus sign", "The answer is +4.", "4"),
    ("equals word", "The answer equals 77.", "77"),
    ("time of day", "The answer is 3:30 pm.", "3:30 pm"),
    # The last equation, the last number.
    ("equation", "48 / 2 = 24", "24"),
    ("equations", "x = 3, then y = 7", "7"),
    ("equation with unit", "6 * 2 = 12 apples. That was all.", "12"),
    ("equation with currency", "3 * $4 = $12", "12"),
    ("equation chain", "2 + 2 + 2 = 4 + 2 = 6", "6"),
    ("conclusion after equations", "We get x = 3 or x = -2. So the sum is 1.", "1"),
    ("conclusion on its own line", "12 / 4 = 3 per box\nTherefore she needs 15 boxes.", "15"),
    ("conclusion of two numbers", "3 * 4 = 12. So from 3 to 4 it grows.", "12"),
    ("conclusion before an equation", "So 3 are left. 3 * 7 = 21", "21"),
    ("equation in dollars", "We get $x = \\frac{5}{2}$ in the end.", "5/2"),
    ("equation with approx", r"$\sqrt{10} \approx 3.16$", "3.16"),
    ("equation with approx sign", "10/3 \u2248 3.33", "3.33"),
    ("inequality is no equation", "We need x >= 4, that makes 9 in all.", "9"),
    ("last number", "She sold 48 clips in April and 24 in May, which makes 72 clips.", "72"),
    ("last number in bold", "That leaves her with **18** eggs.", "18"),
    ("last number with currency", "So Janet makes $18 every day.", "18"),
    ("last number with thousands", "In the end 12,500 people came.", "12500"),
    ("last number is a fraction", "He ate 3/4 of it", "3/4"),
    ("last number is negative", "so the temperature was -12 degrees.", "-12"),
    ("difference is no sign", "there were 20-5 of them", "5"),
    ("marks of a list", "1. Add both.\n2. That makes 30 coins.\n3. We are done.", "30"),
    ("number alone", "7", "7"),
    ("latex fraction alone", r"It is \frac{2}{3} of them", "2/3"),
    ("decimal at the end", "It weighs 2.75", "2.75"),
    # Nothing.
    ("empty", "", None),
    ("spaces", " \n ", None),
    ("talk", "Let us think about this step by step.", None),
    ("refusal", "I cannot solve this problem.", None),
    ("refusal with a number", "I'm sorry, but I can't help with those 3 questions.", None),
    ("not enough information", "There are 5 boxes. There is not enough information to answer.", None),
    ("cannot be determined", "The price of the 2 items cannot be determined.", None),
    ("I do not know", "I do not know. Maybe ask 2 friends.", None),
    ("answer unknown", "The answer is unknown.", None),
    ("answer cannot be determined", "The answer cannot be determined from 3 facts.", None),
    ("as an AI", "As an AI model with 7 billion parameters I have no opinion.", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_final_answer_is_found_in_its_normal_form(text: str, expected: str | None) -> None:
    assert extract_answer(text, TASK) == expected


def test_words_keep_their_case_when_asked() -> None:
    task = TaskConfig(kind="math", case_sensitive=True)
    assert extract_answer(r"\boxed{\text{Monday}}", task) == "Monday"


@pytest.mark.parametrize("text", [case[1] for case in CASES if case[2] is not None])
def test_a_normal_form_is_its_own_normal_form(text: str) -> None:
    found = extract_answer(text, TASK)
    assert found is not None
    assert extract_answer(f"\\boxed{{{found}}}", TASK) == found


@pytest.mark.parametrize(
    "piece", ["$", "{", "\\boxed{", "1,", "a ", "= ", "(", "the answer is ", " 1", "\\frac{1}"]
)
def test_a_long_completion_of_one_piece_takes_no_long_time(piece: str) -> None:
    started = time.process_time()
    extract_answer(piece * (20_000 // len(piece)), TASK)
    assert time.process_time() - started < 2.0

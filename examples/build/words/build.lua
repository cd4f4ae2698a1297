-- What examples/build.lua builds when it is given nothing else: a program in C, a test of it, and documents about the
-- words of this project's own texts.

local CC = "cc -std=c99 -O2 -Wall -Wextra "

local TEXTS = { "../../../README.md", "../../../CHANGELOG.md", "../../../src/README.md" }

-- The same as the program does, with what every system has.
local COUNT = "cat $in | tr -cs A-Za-z '\\n' | tr A-Z a-z | sed '/^$/d' | LC_ALL=C sort | uniq -c"
local BY_FREQUENCY = " | LC_ALL=C sort -k1,1nr -k2"

return {
  { target = "all", from = { "words", "test", "words.tar" } },

  { target = "main.o", from = { "main.c" }, also = { "reader.h", "table.h" }, run = CC .. "-c -o $out $in" },
  { target = "reader.o", from = { "reader.c" }, also = { "reader.h" }, run = CC .. "-c -o $out $in" },
  { target = "table.o", from = { "table.c" }, also = { "table.h" }, run = CC .. "-c -o $out $in" },
  { target = "words", from = { "main.o", "reader.o", "table.o" }, run = CC .. "-o $out $in" },

  { target = "expected", from = TEXTS, run = COUNT .. BY_FREQUENCY .. " >$out" },
  { target = "frequent", from = TEXTS, also = { "words" }, run = "cat $in | ./words >$out" },
  { target = "test", from = { "expected", "frequent" }, run = "diff $in && echo passed >$out" },

  { target = "contents", from = TEXTS, run = "sed -n 's/^##* //p' $in >$out" },
  { target = "sizes", from = TEXTS, run = "wc -lwc $in >$out" },
  { target = "words.tar", from = { "contents", "frequent", "sizes" }, run = "tar -cf $out contents frequent sizes" },
}

-- Runs the specs with the interpreter that runs this: `lua5.4 spec/run.lua [busted's arguments]`.
require("busted.runner")({ standalone = false })

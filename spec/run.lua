-- Runs the specs with the interpreter that runs this: `lua5.4 spec/run.lua [busted's arguments]`.
if _VERSION == "Lua 5.5" then require("spec.interpreter.old_loops") end
require("busted.runner")({ standalone = false })

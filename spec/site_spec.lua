-- The site under docs/ and the pictures: what they are made of, and that they are up to date.

local scheduler = require("scheduler")
local chart = require("bench.chart")
local reference = require("docs.reference")

local function read(path)
  local file = assert(io.open(path, "rb"), path .. " is not there: run `make docs`")
  local text = file:read("*a")
  file:close()
  return text
end

local function lines_of(command)
  local pipe, lines = assert(io.popen(command)), {}
  for line in pipe:lines() do
    lines[#lines + 1] = line
  end
  pipe:close()
  return lines
end

--- What a path of names leads to: `scheduler.task.spawn`.
local function find(path)
  local value = { scheduler = scheduler }
  for name in path:gmatch("[^.]+") do
    value = value and value[name]
  end
  return value
end

--- The entries of the reference that satisfy a condition.
local function entries(sections, is_wanted)
  local found = {}
  for _, section in ipairs(sections) do
    for _, entry in ipairs(section.entries) do
      if is_wanted(entry) then found[#found + 1] = entry end
    end
  end
  return found
end

describe("the reference", function()
  local source = read("types/scheduler.lua")
  local sections = reference.read(source)

  it("has every function of the types", function()
    local functions = entries(sections, function(entry) return entry.kind == "function" end)
    local _, plain = source:gsub("\nfunction ", "")
    local _, quoted = source:gsub('\n%w+%["%w+"%] = function', "")
    assert.are.equal(plain + quoted, #functions)
  end)

  it("names functions that the module has", function()
    for _, entry in ipairs(entries(sections, function(entry) return entry.kind == "function" end)) do
      local path = entry.path:gsub("^Promise%.", "scheduler.Promise.")
      if path:find("^scheduler%.") then assert.is_not_nil(find(path), path .. " is not there") end
    end
  end)

  it("reads types, names and texts apart", function()
    local entry = reference.read(table.concat({
      "---@class scheduler.Thing",
      "local Thing = {}",
      "",
      "---Does it.",
      "---@param fn fun(a: any, b?: string): any, string What is called.",
      "---@param how? { [1]: string, n?: integer }|\"a b\" How.",
      "---@param ... any",
      "---@return table<string, integer> counts By name.",
      "function Thing:act(fn, how, ...) end",
    }, "\n"))[1].entries[2]
    assert.are.equal("Thing:act", entry.path)
    assert.are.equal("thing:act", reference.called(entry))
    assert.are.equal("scheduler.Thing:act", reference.id_of(entry))
    assert.are.same({ name = "fn", is_optional = false, type = "fun(a: any, b?: string): any, string",
      text = "What is called." }, entry.params[1])
    assert.are.same({ name = "how", is_optional = true, type = "{ [1]: string, n?: integer }|\"a b\"", text = "How." },
      entry.params[2])
    assert.are.equal("...", entry.params[3].name)
    assert.are.same({ name = "counts", type = "table<string, integer>", text = "By name." }, entry.returns[1])
  end)
end)

describe("the site", function()
  local pages = lines_of("ls docs/site/*.html")

  it("has the reference of today", function()
    local page = read("docs/site/reference.html")
    for _, id in pairs(reference.ids(reference.read(read("types/scheduler.lua")))) do
      assert.is_truthy(page:find(('id="%s"'):format(id), 1, true), id .. " is missing: run `make docs`")
    end
  end)

  it("has a page for each of the guide", function()
    for _, path in ipairs(lines_of("ls docs/guide/*.md")) do
      local title = read(path):match("^# ([^\n]+)")
      local page = read("docs/site/" .. path:match("([%w-]+)%.md$") .. ".html")
      assert.is_truthy(page:find(">" .. title .. "</h1>", 1, true), path)
    end
  end)

  it("loads nothing from elsewhere", function()
    assert.is_true(#pages > 20, #pages)
    for _, path in ipairs(pages) do
      local page = read(path)
      assert.is_nil(page:find("<script"), path)
      for address in page:gmatch('src="([^"]*)"') do
        assert.is_truthy(read("docs/site/" .. address), address)
      end
      for link in page:gmatch("<link[^>]*>") do
        assert.are.equal('<link rel="stylesheet" href="style.css">', link)
      end
    end
    assert.is_nil(read("docs/site/style.css"):find("url%(") or read("docs/site/style.css"):find("@import"))
  end)

  it("has no link that leads nowhere", function()
    for _, path in ipairs(pages) do
      for link in read(path):gmatch('href="([^"#:]+)[^":]*"') do
        assert.is_truthy(read("docs/site/" .. link), path .. ": " .. link)
      end
    end
  end)
end)

describe("the pictures", function()
  local results = chart.read(read("bench/RESULTS.md"))

  it("are drawn from the results", function()
    for _, picture in ipairs(chart.pictures) do
      local path = "bench/charts/" .. chart.name_of(picture)
      assert.are.equal(chart.draw(picture, results[picture.workload]), read(path), path .. ": run `make docs`")
    end
  end)

  it("show each peer once, with its figure, and the longest bar within the picture", function()
    local rows = chart.read(table.concat({
      "`jobs`: what is measured.",
      "| lua5.4 | run | scheduler | 0.25 µs | 0.20 – 0.29 |  | ≤ 0.35 µs | yes |",
      "| lua5.4 | run | node | 12345.6 µs | 12000.0 – 13000.0 | 0.1 |  |  |",
      "| luajit | run | scheduler | 0.20 µs | |  |  |  |",
      "| luajit | run | node | 12345.6 µs | 12000.0 – 13000.0 | 0.1 |  |  |",
    }, "\n"))
    local svg = chart.draw({ measurement = "run", title = "A < B" }, rows.jobs)
    assert.is_truthy(svg:find("<title>A &lt; B</title>", 1, true))
    assert.is_truthy(svg:find(">0.25</text>", 1, true) and svg:find(">0.20</text>", 1, true))
    assert.are.equal(2, select(2, svg:gsub("12,346", "")), "in words and in the picture")
    assert.is_truthy(svg:find("shorter is better"))
    local width = tonumber(svg:match('viewBox="0 0 (%d+)'))
    for x, length in svg:gmatch('<rect x="(%d+)" y="%d+" width="([%d.]+)"') do
      assert.is_true(x + length < width)
    end
  end)
end)

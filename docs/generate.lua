-- Makes the site: docs/site/, from the pages in docs/guide/, the types, and what else of the project is worth reading.
--
--   lua5.4 docs/generate.lua MARKDOWN     MARKDOWN is the program that turns Markdown into HTML (docs/markdown/)
--
-- A link in a page goes to a file of the project. Here it becomes a link to the page that is made from that file; one
-- that leads nowhere stops the generator.

local reference = require("docs.reference")
local chart = require("bench.chart")

local SITE = "docs/site/"
local TYPES = "types/scheduler.lua"

--- The pages of the guide, which follow on each other.
local GUIDE = {
  { "docs/guide/index.md", "index", "Start" },
  { "docs/guide/timers.md", "timers" },
  { "docs/guide/tasks.md", "tasks" },
  { "docs/guide/promises.md", "promises" },
  { "docs/guide/parallel.md", "parallel" },
  { "docs/guide/sharing.md", "sharing" },
  { "docs/guide/errors.md", "errors" },
  { "docs/guide/looking.md", "looking" },
  { "docs/guide/embedding.md", "embedding" },
  { "docs/guide/command.md", "command" },
  { "docs/guide/recipes.md", "recipes" },
}

local MORE = {
  { "docs/guide/coming-from.md", "coming-from" },
  { "docs/guide/peers.md", "peers" },
  { "docs/guide/limits.md", "limits" },
  { "docs/bad-days.md", "bad-days", "Bad days" },
  { "docs/checks.md", "checks", "Checks" },
}

local PROJECT = {
  { "CHANGELOG.md", "changelog" },
  { "src/README.md", "design", "How it is built" },
  { "CONTRIBUTING.md", "contributing" },
  { "bench/README.md", "benchmarks" },
  { "bench/RESULTS.md", "results" },
}

--- The examples have pages of their own, made of their source.
local EXAMPLES = { "analyse", "build", "pipeline", "check", "mandelbrot", "stages" }

-- Files -------------------------------------------------------------------------------------------------------------

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  file:close()
end

local function to_html(markdown, converter)
  local path = os.tmpname()
  write(path, markdown)
  local pipe = assert(io.popen(("%s < %s"):format(converter, path)))
  local html = pipe:read("*a")
  pipe:close()
  os.remove(path)
  if html == "" then error("the program for Markdown made nothing: " .. converter, 0) end
  return html
end

-- Pages -------------------------------------------------------------------------------------------------------------

local function title_of(markdown)
  return (markdown:match("^# ([^\n]+)"):gsub("`", ""))
end

local function page_of(place)
  local markdown = read(place[1])
  local title = title_of(markdown)
  return { source = place[1], name = place[2], title = title, label = place[3] or title, markdown = markdown }
end

local function pages_of(places)
  local pages = {}
  for i, place in ipairs(places) do
    pages[i] = page_of(place)
  end
  return pages
end

local function reference_page()
  local sections = reference.read(read(TYPES))
  return {
    source = TYPES,
    name = "reference",
    title = "Reference",
    markdown = reference.write(sections),
    ids = reference.ids(sections),
  }
end

local function example_pages()
  local pages = {}
  for i, name in ipairs(EXAMPLES) do
    local source = ("examples/%s.lua"):format(name)
    local text = ("# %s\n\n```lua\n%s```\n"):format(source, read(source))
    pages[i] = { source = source, name = "example-" .. name, title = name .. ".lua", markdown = text }
  end
  return pages
end

local function license_page()
  return { source = "LICENSE", name = "license", title = "License", markdown = "# License\n\n" .. read("LICENSE") }
end

--- The groups of pages that the menu shows.
local function read_pages()
  local more = pages_of(MORE)
  table.insert(more, 1, reference_page())
  local project = pages_of(PROJECT)
  project[#project + 1] = license_page()
  local guide = pages_of(GUIDE)
  for i, page in ipairs(guide) do
    page.before, page.after = guide[i - 1], guide[i + 1]
  end
  return {
    { title = "Guide", pages = guide },
    { title = "Look up", pages = more },
    { title = "Examples", pages = example_pages() },
    { title = "Project", pages = project },
  }
end

-- Links -------------------------------------------------------------------------------------------------------------

--- A path as it is from the root of the project: `docs/guide/../../src/README.md` is `src/README.md`.
local function normal(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do
    if part == ".." then table.remove(parts) elseif part ~= "." then parts[#parts + 1] = part end
  end
  return table.concat(parts, "/")
end

--- Where a link or a picture of a page leads in the site.
local function resolve(page, link, places)
  if link:find("^%a+:") or link:find("^#") then return link end
  local path, anchor = link:match("^([^#]*)(#?.*)$")
  local target = normal(page.source:gsub("[^/]+$", "") .. path)
  local picture = target:match("^bench/charts/(.+)$")
  if picture then return "charts/" .. picture end
  if not places[target] then error(("%s has a link that leads nowhere: %s"):format(page.source, link), 0) end
  return places[target] .. ".html" .. anchor
end

local function resolve_links(page, html, places)
  return (html:gsub('(%s)(href)="([^"]*)"', function(space, name, link)
    return ('%s%s="%s"'):format(space, name, resolve(page, link, places))
  end):gsub('(<img[^>]-)(src)="([^"]*)"', function(before, name, link)
    return ('%s%s="%s"'):format(before, name, resolve(page, link, places))
  end))
end

--- Makes the name of something in the reference a link to it: `task.spawn`, `setTimeout`. Plain words are left alone:
--- they may mean an option.
local function link_names(page, html, ids)
  local target = page.name == "reference" and "" or "reference.html"
  return (html:gsub("<code>([%w_.:]+)([^<]*)</code>", function(name, arguments)
    local is_plain = not name:find("[.:]") and not name:find("^%l+%u")
    local is_call = arguments == "" or arguments:find("^%(")
    if is_plain or not is_call or not ids[name] then return end
    return ('<a class="name" href="%s#%s"><code>%s%s</code></a>'):format(target, ids[name], name, arguments)
  end))
end

--- What names are left alone in: headings, links, names of arguments.
local KEPT = { "<h%d.->.-</h%d>", "<a .-</a>", "<dt>.-</dt>" }

local function next_kept(html, from)
  local first, last
  for _, pattern in ipairs(KEPT) do
    local begins, ends = html:find(pattern, from)
    if begins and (not first or begins < first) then
      first, last = begins, ends
    end
  end
  return first, last
end

local function link_names_outside(page, html, ids)
  local parts, from = {}, 1
  while true do
    local first, last = next_kept(html, from)
    parts[#parts + 1] = link_names(page, html:sub(from, (first or 0) - 1), ids)
    if not first then return table.concat(parts) end
    parts[#parts + 1] = html:sub(first, last)
    from = last + 1
  end
end

-- The frame of a page -----------------------------------------------------------------------------------------------

local FRAME = [[
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>%s</title>
<link rel="stylesheet" href="style.css">
</head>
<body>
<header>
<a class="brand" href="index.html">scheduler</a>
<details><summary>Menu</summary><nav>%s</nav></details>
</header>
<div class="page">
<nav class="side">%s</nav>
<main>
%s%s
</main>
</div>
</body>
</html>
]]

local function menu(groups, current)
  local lines = {}
  for _, group in ipairs(groups) do
    lines[#lines + 1] = ("<p>%s</p><ul>"):format(group.title)
    for _, page in ipairs(group.pages) do
      local here = page == current and ' aria-current="page"' or ""
      lines[#lines + 1] = ('<li><a href="%s.html"%s>%s</a></li>'):format(page.name, here, page.label or page.title)
    end
    lines[#lines + 1] = "</ul>"
  end
  return table.concat(lines)
end

local function neighbours(page)
  if not page.before and not page.after then return "" end
  local before = page.before and ('<a rel="prev" href="%s.html">← %s</a>'):format(page.before.name, page.before.label)
  local after = page.after and ('<a rel="next" href="%s.html">%s →</a>'):format(page.after.name, page.after.label)
  return ('<p class="neighbours">%s<span></span>%s</p>'):format(before or "", after or "")
end

--- Tables get a box in which they can be moved where the page is narrow, and code in them may be broken.
local function box_tables(html)
  return (html:gsub("<table>.-</table>", function(block)
    local broken = block:gsub("<code>.-</code>", function(code)
      return (code:gsub("%a[.(:]%f[%a{]", "%0<wbr>"))
    end)
    return '<div class="table">' .. broken .. "</div>"
  end))
end

local function make(page, groups, places, ids, converter)
  local html = to_html(page.markdown, converter)
  html = box_tables(link_names_outside(page, resolve_links(page, html, places), ids))
  local title = page.name == "index" and "scheduler" or page.title .. " – scheduler"
  local list = menu(groups, page)
  page.html = FRAME:format(title, list, list, html, neighbours(page))
  write(SITE .. page.name .. ".html", page.html)
end

--- Stops at a link to a place that a page does not have.
local function check_anchors(groups)
  local pages = {}
  for _, group in ipairs(groups) do
    for _, page in ipairs(group.pages) do
      pages[page.name] = page.html
    end
  end
  for name, html in pairs(pages) do
    for link in html:gmatch('href="([^"]*#[^"]*)"') do
      local target, anchor = link:match("^([%w-]*)%.?h?t?m?l?#(.*)$")
      local there = target and pages[target ~= "" and target or name]
      if target and not (there and there:find(('id="%s"'):format(anchor), 1, true)) then
        error(("%s.html has a link to a place that is not there: %s"):format(name, link), 0)
      end
    end
  end
end

local function copy_pictures()
  for _, picture in ipairs(chart.pictures) do
    local name = chart.name_of(picture)
    local file = io.open("bench/charts/" .. name, "rb")
    if file then
      file:close()
      write(SITE .. "charts/" .. name, read("bench/charts/" .. name))
    end
  end
end

local function main(converter)
  if not converter then error("usage: docs/generate.lua MARKDOWN", 0) end
  local groups, places, ids, count = read_pages(), {}, nil, 0
  for _, group in ipairs(groups) do
    for _, page in ipairs(group.pages) do
      places[page.source], ids = page.name, page.ids or ids
    end
  end
  places["README.md"] = "index"
  os.execute("mkdir -p " .. SITE .. "charts")
  for _, group in ipairs(groups) do
    for _, page in ipairs(group.pages) do
      make(page, groups, places, ids, converter)
      count = count + 1
    end
  end
  check_anchors(groups)
  write(SITE .. "style.css", read("docs/style.css"))
  copy_pictures()
  print(("%d pages in %s"):format(count, SITE))
end

main(...)

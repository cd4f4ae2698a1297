-- Draws the Mandelbrot set on all cores, by rows, into one buffer that all workers share: no pixel is sent back. Then
-- again with one worker, and compares. The image is written as PGM, which most viewers show.
--
-- usage: lua examples/mandelbrot.lua [FILE [WIDTH]]     (without a file, it is a temporary one)

local scheduler = require("scheduler")
local parallel = scheduler.parallel

local MOST_STEPS = 200

local file_name, width = arg[1], tonumber(arg[2] or 900)
assert(width and width >= 6 and width % 6 == 0, "the width must be a multiple of 6")
local height = width / 3 * 2 -- from -2 to 1, and from -i to i

--- Draws one row: 0 is in the set, and the brighter a point, the sooner it leaves. The buffer goes to the workers by
--- reference, and a row has no result.
local function row_drawer(pixels)
  return function(row)
    local size = 3 / width
    local ci, at = (row - height / 2) * size, row * width + 1
    for column = 0, width - 1 do
      local cr = (column - width * 2 / 3) * size
      local r, i, steps = 0, 0, 0
      while r * r + i * i <= 4 and steps < MOST_STEPS do
        r, i, steps = r * r - i * i + cr, 2 * r * i + ci, steps + 1
      end
      pixels:set(at + column, steps < MOST_STEPS and 255 - steps or 0)
    end
  end
end

local function rows()
  local row = -1
  return function()
    row = row + 1
    if row < height then return row end
  end
end

local function draw(pool)
  local pixels, start = scheduler.shared.buffer("u8", width * height), scheduler.now()
  pool:map(rows(), row_drawer(pixels)):expect()
  return pixels, (scheduler.now() - start) / 1000
end

local function check_pixels(pixels)
  local function pixel(r, i)
    return pixels:get((i + 1) * width / 3 * width + (r + 2) * width / 3 + 1)
  end
  assert(pixel(0, 0) == 0 and pixel(-1, 0) == 0 and pixel(-2, 0) == 0, "these points are in the set")
  -- Of 1 - i: 1 - i, 1 - 3i, which is too far; of -2 - i it is the first one already.
  assert(pixel(-2, -1) == 254, "this point leaves at once")
  assert(pixel(0.5, 0) == 250, "0.5, 0.75, 1.06, 1.63, 3.15: five steps")
  for row = 1, height / 2 - 1 do
    local above, below = row * width, (height - row) * width
    local is_mirrored = pixels:tostring(above + 1, above + width) == pixels:tostring(below + 1, below + width)
    assert(is_mirrored, "the set is its own mirror image")
  end
end

local function write_image(pixels)
  local path = file_name or os.tmpname()
  local file = assert(io.open(path, "wb"))
  file:write(("P5\n%d %d\n255\n"):format(width, height), pixels:tostring())
  file:close()
  return path
end

local function check_image(path, pixels)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  assert(text:sub(-width * height) == pixels:tostring(), "the image on disk differs")
  return #text
end

local all, single = parallel.pool({ name = "mandelbrot" }), parallel.pool({ size = 1 })
local pixels, seconds = draw(all)
local again, seconds_alone = draw(single)
check_pixels(pixels)
assert(pixels:tostring() == again:tostring(), "the two images differ")

local path = write_image(pixels)
print(("%d x %d points: %.2f s with %d workers"):format(width, height, seconds, all:stats().workers))
print(("%.2f s with one; speed-up %.2f, the same image"):format(seconds_alone, seconds_alone / seconds))
print(("%s: %d bytes"):format(path, check_image(path, pixels)))
if not file_name then os.remove(path) end

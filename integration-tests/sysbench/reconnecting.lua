-- oltp_read_write as it is shipped, which goes on with another connection when its own has ended, and says whether that
-- was between two transactions. (Let alone, sysbench ends there; told to ignore it, MariaDB's library crashes in it.)
require("oltp_read_write")

local shipped = { begin = begin, commit = commit, event = event }
local is_open = false

function begin()
   shipped.begin()
   is_open = true
end

function commit()
   shipped.commit()
   is_open = false
end

function event()
   local done, fault = pcall(shipped.event)
   if done then
      return
   end
   local text = tostring(fault)
   if not (text:find("errno = 2006") or text:find("errno = 2013")) then
      -- A deadlock, which sysbench counts before it begins anew, or the end of the run.
      is_open = false
      error(fault, 0)
   end
   -- In one piece: other threads write, too.
   io.write((is_open and "cut: " or "ended: ") .. text .. "\n")
   is_open = false
   con:disconnect()
   thread_init()
end

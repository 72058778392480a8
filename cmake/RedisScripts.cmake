# Writes scripts.h: the text of each script of the Redis backend as a C string, and its SHA-1, by which the server knows it.
#   cmake -DSOURCES=a.lua;b.lua -DOUT=scripts.h -P RedisScripts.cmake
set(header "/* Generated from the scripts. */\n")
foreach(source IN LISTS SOURCES)
  get_filename_component(name "${source}" NAME_WE)
  string(TOUPPER "SCRIPT_${name}" name)
  file(READ "${source}" text)
  file(SHA1 "${source}" sha1)
  string(REPLACE "\\" "\\\\" text "${text}")
  string(REPLACE "\"" "\\\"" text "${text}")
  string(REPLACE "\n" "\\n\" \\\n    \"" text "${text}")
  string(APPEND header "#define ${name}_SHA1 \"${sha1}\"\n#define ${name}_TEXT \\\n    \"${text}\"\n")
endforeach()
file(WRITE "${OUT}" "${header}")

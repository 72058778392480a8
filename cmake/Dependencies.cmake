# The libraries that the core is built on. Three targets:
#   cf_deps_headers   what the core's sources include
#   cf_deps           what the C library links: the system's, dynamically
#   cf_deps_static    what the Python module and the Node addon link: archives, whose symbols --exclude-libs hides. node exports an OpenSSL
#                     of its own, and a Python may carry one: ours must not meet it.
include(FindPackageHandleStandardArgs)
find_package(PkgConfig QUIET)
if(PkgConfig_FOUND)
  pkg_check_modules(CF_PC_HIREDIS QUIET hiredis)
endif()
# hiredis before 1.0 has no CMake package, and its .pc points inside include/hiredis.
find_path(CF_HIREDIS_INCLUDE hiredis/hiredis.h HINTS ${CF_PC_HIREDIS_INCLUDEDIR} ${CF_PC_HIREDIS_INCLUDE_DIRS})
find_library(CF_HIREDIS_LIBRARY NAMES hiredis HINTS ${CF_PC_HIREDIS_LIBDIR})
find_library(CF_HIREDIS_ARCHIVE NAMES libhiredis.a HINTS ${CF_PC_HIREDIS_LIBDIR})
mark_as_advanced(CF_HIREDIS_INCLUDE CF_HIREDIS_LIBRARY CF_HIREDIS_ARCHIVE)
if(NOT CF_HIREDIS_INCLUDE OR NOT (CF_HIREDIS_LIBRARY OR CF_HIREDIS_ARCHIVE))
  message(FATAL_ERROR "hiredis was not found. On Debian or Ubuntu: apt-get install libhiredis-dev   on Fedora: dnf install hiredis-devel   "
    "on macOS: brew install hiredis")
endif()
if(NOT CF_HIREDIS_LIBRARY)
  set(CF_HIREDIS_LIBRARY "${CF_HIREDIS_ARCHIVE}")
endif()

add_library(cf_deps_headers INTERFACE)
target_include_directories(cf_deps_headers SYSTEM INTERFACE "${CF_HIREDIS_INCLUDE}")
add_library(cf_deps INTERFACE)
target_link_libraries(cf_deps INTERFACE "${CF_HIREDIS_LIBRARY}")
add_library(cf_deps_static INTERFACE)
if(CF_HIREDIS_ARCHIVE)
  target_link_libraries(cf_deps_static INTERFACE "${CF_HIREDIS_ARCHIVE}")
else()
  message(STATUS "There is no libhiredis.a: the bindings link hiredis dynamically")
  target_link_libraries(cf_deps_static INTERFACE "${CF_HIREDIS_LIBRARY}")
endif()

if(CF_TLS)
  find_package(OpenSSL 1.1.1 QUIET)
  if(NOT OPENSSL_FOUND)
    message(FATAL_ERROR "OpenSSL was not found. On Debian or Ubuntu: apt-get install libssl-dev   on Fedora: dnf install openssl-devel   "
      "on macOS: brew install openssl   or build without TLS: -DCF_TLS=OFF")
  endif()
  target_include_directories(cf_deps_headers SYSTEM INTERFACE "${OPENSSL_INCLUDE_DIR}")
  target_link_libraries(cf_deps INTERFACE OpenSSL::SSL OpenSSL::Crypto)
  get_filename_component(cf_openssl_dir "${OPENSSL_SSL_LIBRARY}" DIRECTORY)
  find_library(CF_SSL_ARCHIVE NAMES libssl.a HINTS "${cf_openssl_dir}")
  find_library(CF_CRYPTO_ARCHIVE NAMES libcrypto.a HINTS "${cf_openssl_dir}")
  mark_as_advanced(CF_SSL_ARCHIVE CF_CRYPTO_ARCHIVE)
  if(NOT CF_SSL_ARCHIVE OR NOT CF_CRYPTO_ARCHIVE)
    message(FATAL_ERROR "There is no libssl.a and libcrypto.a beside ${OPENSSL_SSL_LIBRARY}: the Python module and the Node addon need their own copy of OpenSSL. "
      "Install the static archives (on Debian they are in libssl-dev, on Fedora in openssl-static), or build without TLS: -DCF_TLS=OFF")
  endif()
  target_link_libraries(cf_deps_static INTERFACE "${CF_SSL_ARCHIVE}" "${CF_CRYPTO_ARCHIVE}" ${CMAKE_DL_LIBS})
endif()

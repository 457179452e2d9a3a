# doppel_folder(FOLDER LINK ...): src/FOLDER/**.cpp becomes the library doppel_FOLDER, and
# tests/FOLDER/**_test.cpp one program that ctest runs case by case. A folder that has no sources yet
# is an interface library. main.cpp is left to the executable.
if(DOPPEL_TESTS)
  enable_testing()
  find_package(GTest REQUIRED)
  include(GoogleTest)
endif()

function(doppel_folder FOLDER)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  string(REPLACE "/" "_" NAME ${FOLDER})
  set(LIBRARY doppel_${NAME})

  file(GLOB_RECURSE SOURCES CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${FOLDER}/*.cpp)
  list(FILTER SOURCES EXCLUDE REGEX "/main\\.cpp$")
  if(SOURCES)
    add_library(${LIBRARY} STATIC ${SOURCES})
    target_include_directories(${LIBRARY} PUBLIC ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(${LIBRARY} PUBLIC ${ARG_LINK})
  else()
    add_library(${LIBRARY} INTERFACE)
    target_include_directories(${LIBRARY} INTERFACE ${CMAKE_SOURCE_DIR}/src)
    target_link_libraries(${LIBRARY} INTERFACE ${ARG_LINK})
  endif()

  if(DOPPEL_TESTS)
    file(GLOB_RECURSE TESTS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${FOLDER}/*_test.cpp)
    if(TESTS)
      add_executable(${NAME}_test ${TESTS})
      target_include_directories(${NAME}_test PRIVATE ${CMAKE_SOURCE_DIR}/tests)
      target_link_libraries(${NAME}_test PRIVATE ${LIBRARY} GTest::gtest_main GTest::gmock)
      gtest_discover_tests(${NAME}_test TEST_PREFIX ${NAME}. DISCOVERY_TIMEOUT 60
                           PROPERTIES TIMEOUT 300)
    endif()
  endif()
endfunction()

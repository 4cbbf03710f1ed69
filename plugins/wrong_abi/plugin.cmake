# For tests only: not among the plugins that are installed.
set_target_properties(plugin_wrong_abi PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/plugins)

target_include_directories(plugin_reward PRIVATE ${CMAKE_SOURCE_DIR}/plugins/lib)

target_include_directories(plugin_llm PRIVATE ${CMAKE_SOURCE_DIR}/plugins/lib)

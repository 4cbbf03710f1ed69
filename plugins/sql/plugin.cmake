target_link_libraries(plugin_sql PRIVATE PkgConfig::SQLITE)

"""What makes other implementations targets: functions of other arrays, compiled and exported blocks."""

/*
 * manual: the text of `mr-sim --help`.
 */
#ifndef SIM_MANUAL_H
#define SIM_MANUAL_H

/* Prints the manual to stdout. */
void manual_print(void);

#endif

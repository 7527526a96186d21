/* SPDX-License-Identifier: Apache-2.0 */
#ifndef EW_AGENT_SIGNAL_NAMES_H
#define EW_AGENT_SIGNAL_NAMES_H

const char *signal_name(int sig);       /* "SIGTERM"; "SIG?" for unknown ones */
int signal_from_name(const char *name); /* SIGTERM, TERM, term or 15; -1 if unknown */

#endif

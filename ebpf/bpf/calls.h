/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Which system calls the probe at sys_exit looks at, by number, for each machine. */
#pragma once

enum call_kind {
	CALL_IGNORED = 0,
	CALL_READ,	/* (fd, ...): at the descriptor's position */
	CALL_PREAD,	/* (fd, buf, count, offset) and preadv: offset in the fourth argument */
	CALL_PREADV2,	/* as preadv, where -1 means the descriptor's position */
	CALL_SENDFILE,	/* (out, in, *offset, count) */
	CALL_SPLICE,	/* (in, *offset, ...): splice and copy_file_range */
	CALL_GETEVENTS,	/* (context, least, most, *events): which of the requests that were submitted are done */
	CALL_OPEN,	/* returns a descriptor */
	CALL_CLOSE,	/* (fd) */
	CALL_RENAME,	/* some path now has another name */
	CALL_FADVISE,	/* (fd, ...): from the agent itself, asks for the identity of a directory */
};

#define CALLS_MAX 512

/* A test compares number and name with the kernel's own headers. */
#define CALL(number, name, kind) [number] = kind

#if defined(__TARGET_ARCH_x86)
#define CALL_TABLE                                                                      \
	CALL(0, read, CALL_READ),                                                       \
	CALL(19, readv, CALL_READ),                                                     \
	CALL(17, pread64, CALL_PREAD),                                                  \
	CALL(295, preadv, CALL_PREAD),                                                  \
	CALL(327, preadv2, CALL_PREADV2),                                               \
	CALL(40, sendfile, CALL_SENDFILE),                                              \
	CALL(275, splice, CALL_SPLICE),                                                 \
	CALL(326, copy_file_range, CALL_SPLICE),                                        \
	CALL(208, io_getevents, CALL_GETEVENTS),                                        \
	CALL(333, io_pgetevents, CALL_GETEVENTS),                                       \
	CALL(2, open, CALL_OPEN),                                                       \
	CALL(85, creat, CALL_OPEN),                                                     \
	CALL(257, openat, CALL_OPEN),                                                   \
	CALL(304, open_by_handle_at, CALL_OPEN),                                        \
	CALL(437, openat2, CALL_OPEN),                                                  \
	CALL(3, close, CALL_CLOSE),                                                     \
	CALL(82, rename, CALL_RENAME),                                                  \
	CALL(264, renameat, CALL_RENAME),                                               \
	CALL(316, renameat2, CALL_RENAME),                                              \
	CALL(221, fadvise64, CALL_FADVISE)
#elif defined(__TARGET_ARCH_arm64)
#define CALL_TABLE                                                                      \
	CALL(63, read, CALL_READ),                                                      \
	CALL(65, readv, CALL_READ),                                                     \
	CALL(67, pread64, CALL_PREAD),                                                  \
	CALL(69, preadv, CALL_PREAD),                                                   \
	CALL(286, preadv2, CALL_PREADV2),                                               \
	CALL(71, sendfile, CALL_SENDFILE),                                              \
	CALL(76, splice, CALL_SPLICE),                                                  \
	CALL(285, copy_file_range, CALL_SPLICE),                                        \
	CALL(4, io_getevents, CALL_GETEVENTS),                                          \
	CALL(292, io_pgetevents, CALL_GETEVENTS),                                       \
	CALL(56, openat, CALL_OPEN),                                                    \
	CALL(265, open_by_handle_at, CALL_OPEN),                                        \
	CALL(437, openat2, CALL_OPEN),                                                  \
	CALL(57, close, CALL_CLOSE),                                                    \
	CALL(38, renameat, CALL_RENAME),                                                \
	CALL(276, renameat2, CALL_RENAME),                                              \
	CALL(223, fadvise64, CALL_FADVISE)
#endif

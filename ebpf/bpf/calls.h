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
	CALL_OPEN,	/* returns a descriptor */
	CALL_CLOSE,	/* (fd) */
	CALL_RENAME,	/* some path now has another name */
	CALL_FADVISE,	/* (fd, ...): from the agent itself, asks for the identity of a directory */
};

#define CALLS_MAX 512

#if defined(__TARGET_ARCH_x86)
#define CALL_TABLE                                                                                                     \
	[0] = CALL_READ, [19] = CALL_READ, [17] = CALL_PREAD, [295] = CALL_PREAD, [327] = CALL_PREADV2,                \
	[40] = CALL_SENDFILE, [275] = CALL_SPLICE, [326] = CALL_SPLICE, [2] = CALL_OPEN, [85] = CALL_OPEN,             \
	[257] = CALL_OPEN, [304] = CALL_OPEN, [437] = CALL_OPEN, [3] = CALL_CLOSE, [82] = CALL_RENAME,                 \
	[264] = CALL_RENAME, [316] = CALL_RENAME, [221] = CALL_FADVISE
#elif defined(__TARGET_ARCH_arm64)
#define CALL_TABLE                                                                                                     \
	[63] = CALL_READ, [65] = CALL_READ, [67] = CALL_PREAD, [69] = CALL_PREAD, [286] = CALL_PREADV2,                \
	[71] = CALL_SENDFILE, [76] = CALL_SPLICE, [285] = CALL_SPLICE, [56] = CALL_OPEN, [265] = CALL_OPEN,            \
	[437] = CALL_OPEN, [57] = CALL_CLOSE, [38] = CALL_RENAME, [276] = CALL_RENAME, [223] = CALL_FADVISE
#endif

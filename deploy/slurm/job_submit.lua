--[[
Stages jobs that say nothing: if a batch script runs a command that Foretide has seen reading a volume, the job gets the
directive that asks for that workload's data. Needs JobSubmitPlugins=lua and `foretide slurm`, which keeps the file
`known` up to date. This runs inside slurmctld under its locks, so it reads one small file and no more.
]]

local spool = os.getenv("FORETIDE_SLURM_SPOOL") or "/run/foretide/slurm"
local DIRECTIVE = "#BB_LUA"

-- As the model names a command: figures stand for any figures.
local function shape(command)
	return (command:gsub("%d+", "#"):gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

local function known()
	local workloads = {}
	local file = io.open(spool .. "/known", "r")
	if file then
		for line in file:lines() do
			local workload, command = line:match("^(.-)\t(.+)$")
			if workload then
				workloads[#workloads + 1] = { name = workload, shape = shape(command) }
			end
		end
		file:close()
	end
	return workloads
end

local function recognised(script)
	local workloads = known()
	for line in (script .. "\n"):gmatch("(.-)\r?\n") do
		local said = shape(line)
		if said ~= "" and said:sub(1, 1) ~= "#" then
			for _, workload in ipairs(workloads) do
				-- The command as a whole, at the line's start or after a blank: `srun python train.py`.
				if (" " .. said .. " "):find(" " .. workload.shape .. " ", 1, true) then
					return workload.name
				end
			end
		end
	end
	return nil
end

function slurm_job_submit(job_desc, part_list, submit_uid)
	local script = job_desc.script
	if not script or script:find("\n" .. DIRECTIVE .. "%s") then
		return slurm.SUCCESS
	end
	local workload = recognised(script)
	if workload then
		local first, rest = script:match("^(#![^\n]*\n)(.*)$")
		job_desc.script = (first or "") .. DIRECTIVE .. " workload=" .. workload .. "\n" .. (rest or script)
		slurm.log_info("foretide: a job of user %u is staged as workload %s", submit_uid, workload)
	end
	return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
	return slurm.SUCCESS
end

return slurm.SUCCESS

export const title=()=>'experiment'; export async function open(root){ return {}; }
